// Package jobfile reads job files: strict YAML, one sentence with the line for
// whatever is wrong.
//
//	version: 1
//	kernel: wordcount            # NAME or NAME@VERSION; or  wasm: /path/of/module.wasm
//	inputs:                      # paths of the mount: files, trees, globs (* ? [a-z] **)
//	  - /src/**/*.go
//	split: file                  # file: many tasks, small files packed; none: one task
//	args: ["--top", "20"]        # the module's arguments; {inputs} stands for the input paths
//	params: {stop: "the"}        # the module's environment: QUERN_STOP=the
//	reduce:                      # run once over what the map tasks wrote
//	  kernel: wordcount          # default: the same module
//	  args: []
//	  params: {}
//	output: result.txt           # default: output
//	timeout: 10m                 # of one attempt of one task
//	retries: 2                   # for attempts that fail by their own fault
//	memory: 256MiB               # of one task
//
// Parsing is pure. Unknown fields, wrong types, values out of range, aliases,
// a second document: each is refused. docs/job.schema.json says the same to
// editors; a test holds the two together.
package jobfile
