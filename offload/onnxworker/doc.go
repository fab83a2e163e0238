// Package onnxworker is the worker process for models in the ONNX format: the
// program quern-onnx.
//
//	quern-onnx --probe onnx [--device cpu]      prints the device as JSON (worker.Report); with
//	                                            --device after it has computed a known answer
//	quern-onnx onnx --device cpu                a worker, started by an agent with a socket as descriptor 3
//
// It is a program of its own, built with cgo (make onnx): onnxruntime is a C++
// library, found when the program starts. QUERN_ONNXRUNTIME names its file;
// else it is libonnxruntime.so.1 or libonnxruntime.so beside the program or
// wherever the loader looks.
//
// A worker is fed through the frames of package worker. It reads records from
// the standard input, as jobfile.ONNX says, has the model compute a batch of
// them at a time, and writes tensors or labels to the standard output. A model
// that crashes the library costs this process and nothing else.
package onnxworker
