// Package jobfile reads job files: strict YAML, one sentence with the line for
// whatever is wrong.
//
//	version: 1
//	kernel: wordcount            # NAME or NAME@VERSION; or  wasm: /path/of/module.wasm
//	inputs:                      # paths of the mount: files, trees, globs (* ? [a-z] **)
//	  - /src/**/*.go
//	split: file                  # or none, shard, block, lines, bytes (split.go)
//	task_bytes: 16MiB            # how much of the inputs a task gets, about
//	args: ["--top", "20"]        # the module's arguments; {inputs} stands for the input paths
//	params: {stop: "the"}        # the module's environment: QUERN_STOP=the
//	reduce:                      # run once over what the map tasks wrote
//	  kernel: wordcount          # default: the same module
//	  args: []
//	  params: {}
//	output: result.txt           # default: output; or /DIRECTORY/{name}.txt of the mount
//	if_exists: replace           # of a result there: or fail, skip
//	after: [other]               # jobs that have to end before (life.go)
//	array: 100                   # so many tasks, each with all inputs
//	priority: 0
//	deadline: 12h
//	ttl: 7d                      # after its end the job is forgotten
//	memoise: true                # results of the same work are taken over
//	timeout: 10m                 # of one attempt of one task
//	retries: 2                   # for attempts that fail by their own fault
//	memory: 256MiB               # of one task
//
// Parsing is pure. Unknown fields, wrong types, values out of range, aliases,
// a second document: each is refused. docs/job.schema.json says the same to
// editors; a test holds the two together.
package jobfile
