package wire

// NextAttempt is the number of a task's next attempt: none is given twice.
func NextAttempt(t *Task) uint32 { return max(t.GetAttempt(), t.GetLastAttempt()) + 1 }
