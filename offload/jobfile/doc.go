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
//	combine: {}                  # run over what each task wrote, where it ran (end.go)
//	output: result.txt           # default: output; or /DIRECTORY/{name}.txt of the mount
//	if_exists: replace           # of a result there: or fail, skip
//	after: [other]               # jobs that have to end before (life.go)
//	array: 100                   # so many tasks, each with all inputs
//	visibility: group            # who may read it: owner, group, all
//	priority: 0
//	deadline: 12h
//	ttl: 7d                      # so long after its end the job is forgotten; or never
//	memoise: true                # results of the same work are taken over
//	notify: /log/ends.json       # gets a line when the job has ended
//	output_limit: 16GiB          # that one task may write
//	log_limit: 8MiB              # that is kept of each of its standard streams
//	timeout: 10m                 # of one attempt of one task
//	retries: 2                   # for attempts that fail by their own fault
//	memory: 256MiB               # of one task
//	placement: {hosts: rack=r1}  # where its tasks may run (placement.go)
//	gang: true                   # all tasks start together
//	share: 2                     # among the user's jobs
//	objective: makespan          # or sum
//
// A standing rule is a file of its own (rule.go): which files it is for, a job file
// without inputs, and what becomes of the file then.
//
// Parsing is pure. Unknown fields, wrong types, values out of range, aliases,
// a second document: each is refused. docs/job.schema.json and
// docs/rule.schema.json say the same to editors; tests hold them together.
package jobfile
