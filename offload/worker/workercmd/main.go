// Command workercmd is a worker and nothing else: tests under the race
// detector build it without the detector, under which compiling a module takes
// a minute.
package main

import (
	"os"

	"quernfs/offload/worker"
)

func main() { os.Exit(worker.Main(os.Args[1:])) }
