package wire

import "strconv"

// NextAttempt is the number of a task's next attempt: none is given twice.
func NextAttempt(t *Task) uint32 { return max(t.GetAttempt(), t.GetLastAttempt()) + 1 }

// NotifyOld is what a full file of notices is called from the end of a job on.
func NotifyOld(name string, job uint64) string { return name + "." + strconv.FormatUint(job, 10) }
