package offload

import (
	"errors"
	"fmt"
)

// memoryError is a task that needed more memory than it may have.
type memoryError struct {
	limit int64 // bytes
	most  int64 // that it could have
}

func (e *memoryError) Error() string {
	return fmt.Sprintf("out of memory: the limit is %s (memory: in the job file)", size(uint64(e.limit)))
}

// failed writes into the report what comes of an attempt that ended with err.
// Out of memory costs no retry the first time: the task gets half as much again,
// once; then it is of no use to go on.
func (r *attemptRun) failed(err error) {
	t := r.report
	var memory *memoryError
	if errors.As(err, &memory) && r.fate == fault {
		t.Ooms++
		more := min(memory.limit*3/2, memory.most)
		if t.Ooms == 1 && more > memory.limit {
			t.Memory = uint64(more)
			t.State, t.Reason = StatePending, fmt.Sprintf("to be tried again with %s: attempt %d: %s", size(t.Memory), t.Attempt, err)
			return
		}
		t.Failures++
		t.State, t.Reason = StateFailed, err.Error()
		if t.Ooms > 1 {
			t.Reason = fmt.Sprintf("out of memory twice, the second time with %s, half as much again as the job file says", size(uint64(memory.limit)))
		}
		return
	}
	if r.fate == final {
		t.Failures++
		t.State, t.Reason = StateFailed, err.Error()
		return
	}
	if r.fate == fault {
		t.Failures++
	}
	t.State, t.Reason = afterFailure(t.Attempt, t.Failures, r.retries, r.fate == fault, err.Error())
}
