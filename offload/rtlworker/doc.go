// Package rtlworker is the worker process for a simulated device: it runs the
// model of an RTL kernel, which package rtl makes, cycle by cycle. It is part of
// the program quern-opencl, which opens libraries.
//
//	quern-opencl --probe rtl               prints the device as JSON (worker.Report)
//	quern-opencl --probe rtl --device 0    the same, after it has computed a known answer
//	quern-opencl rtl --device 0            a worker, started by an agent with a socket as descriptor 3
//
// A model is native code, so one is loaded only if a key that the host trusts has
// signed it: what is opened is the memory that was checked, not a file that others
// could have changed since.
//
// The device has done what the circuit would have done in as many cycles: the
// Exit has them, and, as time on the device, what they take at the clock of the
// manifest. A model that crashes or does not end costs this process.
package rtlworker
