package offload

import (
	"time"

	"quernfs/offload/place/predict"
)

// A learned time-out. What runs far longer than predicted may hang: in a driver, or
// on a disk that does not answer. If a slot is idle elsewhere it has a second attempt
// long since (termsecond.go); if not, nobody would notice before the job's timeout,
// which may be a day. So an attempt is taken back, without the cost of a retry, and
// begun anew, elsewhere if there is another place, when it has run for stuckFactor
// times the 95th percentile of its prediction, and at least for StuckAfter.
//
// An honest task that is slow must not fail by that. So each attempt that is taken
// back doubles the limit for the next one, up to the job's timeout: the task ends
// after at most three times its own time. And it is done only where the time is
// known to depend on the input: not for programs, nor for tasks without input (an
// array may have one that takes hours among many that take seconds), nor before
// stuckFrom tasks of the kernel have ended, nor with speculation: false.
const (
	stuckFactor = 10
	stuckFrom   = 16
	stuckAfter  = time.Minute
)

// limit is after how long the only attempt of a task is taken back; 0: the job's
// timeout alone counts. mu is held.
func (t *term) limit(j *jobState, x *taskState) time.Duration {
	p := x.t.Placement
	if j.spec == nil || j.spec.NoSpeculation || x.second != nil || !x.active() || x.bytes == 0 || int(p.GetChosen()) >= len(p.GetPlaces()) {
		return 0
	}
	c := p.Places[p.Chosen]
	if _, program := j.program(x.t.Phase); program || c.Source != learnedSource {
		return 0
	}
	fit := t.s.known.fit(predict.Key{Kernel: variantKey(kernelOfTask(j.job, x.t.Phase), x.t.Runtime), Class: t.classOf(x.t)})
	if fit.Tasks < stuckFrom {
		return 0
	}
	lost := min(max(int(x.t.Attempt)-1-int(x.t.Failures), 0), 16)
	if limit := max(stuckFactor*PlaceLate(c), t.s.cfg.StuckAfter) << lost; limit < j.spec.Timeout {
		return limit
	}
	return 0
}
