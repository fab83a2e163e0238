package offload

import "quernfs/offload/worker"

// WorkerMain is the command `quern worker wasm`: it returns the exit status.
func WorkerMain(args []string) int { return worker.Main(args) }
