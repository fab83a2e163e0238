// Package sim runs a workload on a simulated cluster in simulated time, under
// a policy of placement: package place, or one to compare it with. It is pure:
// the same workload, seed included, gives the same result.
//
// # What is simulated
//
// Hosts with one device each or more, jobs that arrive, tasks whose inputs lie on
// some of the hosts. An attempt fetches what lies elsewhere at the host's
// bandwidth, warms up where its kernel has not run yet, runs, and writes. How long it
// really runs is drawn from the kernel's rate on that class of device, with
// scatter, and with stragglers; the policies see what an agent would report, and
// predictions learned from the tasks that have finished. A lost attempt ends at
// some point of its time and is put back.
//
// Links do not share their bandwidth, and a host's tasks do not slow each other
// down.
//
// # A workload
//
// is a YAML file; see the ones in workloads/ (Builtin names them):
//
//	version: 1
//	seed: 1
//	hosts:   [{count: 4, class: cpu, slots: 4, network: 100MB}]
//	kernels: {count: {classes: {cpu: {rate: 50MB}}}}
//	jobs:    [{user: ann, kernel: count, tasks: 100, bytes: 64MB}]
package sim
