// Package place decides which task runs where. It is pure: no clock, no I/O,
// the same input gives the same decisions.
//
// # Cost
//
// The time until task i ends on device j is predicted as
//
//	T_ij = wait + missing bytes / bandwidth on the way + warm-up + run + output + redo
//
// wait: until the device and its host have room, as far as is planned. missing
// bytes: those of the input that do not lie on the host. warm-up: 0 if the kernel
// is there already. run: what package predict says for the kernel, the class of
// the device and the bytes, over the speed of the device within its class. redo: what is expected to be lost with attempts that
// are lost. Medians are added up; the 95th percentile of run is there for time-outs
// and speculation. There are no locality time-outs: a task whose best device is busy
// waits for it exactly if it is expected to end sooner so.
//
// # Variants
//
// A task has an alternative for each variant of its kernel. Host, device and variant
// are one choice: of the alternatives that a device can run the best counts there,
// and the places compete. Where the user has ordered them, a later one has to be
// expected to end preferPercent sooner for each place in the order. What failed,
// and runtimes with which the task failed, come last; a variant that differs on a
// device is no option there.
//
// # A round
//
//	tasks ──▶ fair: dominant shares, ageing ──▶ batches, as many as slots are free
//	                                              │
//	  a gang: all at one time, now or booked ◀────┤
//	  a probe of an unknown class            ◀────┤
//	  objective makespan: assign.Makespan    ◀────┤
//	  small batch: assign.Completion, exact  ◀────┤
//	  larger: sufferage, then exchanges      ◀────┘
//
// Each batch sees what the ones before have booked, now and later, in the
// profiles of devices and hosts; so a task that waits for much room gets it, and
// others fill in before only if they end by then (backfill).
//
// In a batch that is solved exactly, Σ T_ij over its tasks is least, with tasks
// queueing behind each other where that is shorter. Over several batches fairness
// comes first: who is served is decided before where.
//
// # Size
//
// A round looks at twice as many tasks as there are free slots. In clusters of
// more than 64 devices a task is compared on the hosts that hold some of its
// input and on the soonest two of each class; so a round takes time in proportion
// to the tasks it looks at, not to tasks times devices. A gang is spread over
// wherever its first task could run.
//
// # Packages
//
//	predict  run times, learned from finished tasks   (pure)
//	assign   the matrices: exact, and near the bound  (pure)
//	sim      a cluster in simulated time              (pure)
package place
