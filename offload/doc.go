// Package offload carries a computation to the data: it takes a job file,
// cuts it into tasks, places them on hosts, runs them and shows all of it
// under /.compute.
//
// # Who does what
//
//	cp, mv, cat                    mount                 meta (leader)              host
//	───────────                    ─────                 ─────────────              ────
//	mv x.yaml queue/  ──rename──▶  Overlay.Enqueue
//	                                jobfile.Parse
//	                                expand, pin, pack
//	                                SubmitJob ─────────▶ state machine
//	                                                     Scheduler ◀────Poll─────── Agent
//	                                                      place.Place
//	                                                      UpdateTask(running)
//	                                                      ────────Assignment──────▶ Agent
//	                                                                                 worker process
//	                                                                                 attempt directory
//	                                                     state machine ◀─UpdateTask─ Agent
//	                                                      (renames the outputs)
//	cat jobs/7/wait   ◀──read────  Overlay ◀──GetJob──── state machine
//
// A job is durable in the metadata state machine from the moment the rename
// into queue/ returns. Everything else here can be killed at any time.
//
// # Promises
//
//   - A job file is checked whole before it is taken: an error is one sentence
//     with the line, in errors/NAME, and the errno of the rename.
//   - The name of a job is an idempotency key: the same name with the same
//     content is the same job, with other content it is refused (EEXIST).
//   - Inputs are pinned to what they were at submission. A task that finds an
//     input changed or removed fails and says which one.
//   - A task runs at least once, its result appears exactly once: each attempt
//     writes into a directory of its own below wire.OutputsIno, and one command
//     (UpdateTask, fenced by the attempt's number) renames its files into the
//     job's output directory and records the winner. A small output is in that
//     command itself, and no file before.
//   - A host that is lost costs a task no retry; a kernel that fails does. What would
//     end the same way again is not tried again: what an error means is said in one
//     place (fate.go), by its code, and a code that is not known to pass ends the task.
//   - A task that is late, by what was learned of its kernel, gets a second
//     attempt beside the first; whichever succeeds first commits, the other
//     cannot.
//   - reason is never empty.
//   - A device is offered once it has computed a known answer, and a variant of
//     a kernel is used on it once its result was found to be the reference's,
//     where there is one.
//   - What runs as it is, a bitstream or the model of a circuit, is loaded only if
//     somebody whom the host trusts has signed it; and a simulated device is given
//     only to a job that allows one.
//   - Host, device and variant are chosen together, by when a task is expected to
//     end (placing.go), of those that the job file allows. What no host could ever
//     do is refused at submission (fits.go); what has to wait says for what (why.go).
//   - What runs far longer than was learned is begun anew, and no honest task fails
//     by that (termstuck.go).
//   - A kernel cannot harm more than its attempt: it runs in a worker process
//     with a memory limit, sees its inputs only, and is stopped by SIGKILL.
//   - A program (exec) runs as the job's owner, in a sandbox, and only where an
//     administrator has allowed it. A host is not offered what it cannot limit.
//
// # Files of a job
//
// A job's outputs lie in one directory (Job.out_dir), shown as jobs/ID/out.
// Without a reduce step each task n leaves one file there, OUTPUT for a job of
// one task, else OUTPUT.NNNNN (the task's number). With a reduce step the map
// tasks leave .part.NNNNN, and the reduce task, which reads these, leaves
// OUTPUT. Attempt directories are called attempt.NODE.JOB.TASK.ATTEMPT; an
// agent removes those of its own node that it finds at its start.
//
// A job may name a directory of the mount for its results (Job.out_parent): then
// what its last step leaves goes there, under the name that the job file says.
//
// With a combine step the output of a map task does not leave its host before
// that step has run over it (combine.go): the attempt writes it to a local file
// without a name, runs the step over that, and commits what it leaves as the
// task's part. An attempt that is lost takes the local file with it, and the
// next one runs both again; so a part appears exactly once, as without the step.
//
// The command that ends a job also writes its notice (Job.notify), and removes
// the file that a rule's job was about (Job.source), if that is to be: see
// meta/state/jobsource.go for when.
//
// # Parts of files
//
// With split: shard a task gets what one chunk server holds of the inputs
// (cut.go), and sees a file that consists of that alone (ranges.go): of the lines
// that end in it. The beginning of a line that lies elsewhere is fetched as the end
// of a leaf (internal/block). What was read on the host and what came over the
// network is counted by a meter in the context (internal/traffic).
//
// # Time
//
// The leader begins jobs that waited for others, ends those that are late, and
// removes those whose time after their end is over (termlife.go).
//
// # Short tasks
//
// Nothing waits for a task alone. The starts that a round of the scheduler decides
// are one command (termstart.go), and so are the reports that come while a command
// is under way (reports.go). An agent holds tasks ready beyond those that run
// (ahead.go), gives a slot to the next while the report of the last is being
// stored, and asks for more every 10 ms at most as long as it has some. A round
// begins some milliseconds after the one before at the earliest.
//
// # Rules
//
// A standing rule is an ordinary file of /.compute/rules (rules.go). fs asks the
// overlay before one gets its name, as with the queue, and tells it of every
// file that has landed. The overlay reads the rules through the leases of its
// mount: while nothing changes that costs no message, and a change on another
// mount counts from the next file on. What a job's last step writes is looked at
// by the agent (verdict.go), and what it found goes with the report.
//
//	close(f) ─▶ Overlay.Standing ─▶ Overlay.Landed ─▶ SubmitJob(rule, source)
//	                                                   task … UpdateTask(succeeded, verdict)
//	                                                    └─ results in place, source removed or not
//
// # Attributes
//
// user.compute.run and on_close make job files of their values and submit them
// (attributes.go); fs says when. A rule's job is named for the version of the
// file, so it is submitted once for each, and before close returns.
//
// # Packages
//
//	jobfile   the job file: parsing, checking, sentences        (pure)
//	place     which task goes to which device, at what cost     (pure)
//	place/…   predictions, assignment, a simulator              (pure)
//	kernels   the kernels inside the binary, and their sources
//	worker    the worker process, its frames, and its keeper
//	opencl    a binding of OpenCL
//	recipe    the recipe of a kernel carried out on a device
//	clworker  the worker process for one device of OpenCL (cmd/quern-opencl)
//	cudaworker  the worker process for one GPU of NVIDIA's (cmd/quern-cuda)
//	cudastub  quern-cuda and a driver for it, where there is no GPU: for tests
//	ptx       kernels in PTX: what they take; ptx/interp executes them, for tests
//	sign      who vouches for bitstreams and models of circuits    (pure)
//	rtl       models of circuits, made by Verilator
//	rtlworker the worker process for a simulated device (cmd/quern-opencl)
//	onnxworker  the worker process for models (cmd/quern-onnx)
//	trial     variants of a kernel compared
//	client    for programs: the files of /.compute
//	sandbox   programs of the host under bubblewrap and control groups
//	offload   overlay, submission, scheduler, agent
package offload
