package offload

import "time"

// An agent that asks for a task only when a slot is free leaves the slot idle
// for as long as meta takes to record the start: longer than many a task runs.
// So it holds some tasks ready, as many as its slots will have done within
// aheadTime. That is also how much later than elsewhere a task may start
// here.
const (
	aheadTime = 150 * time.Millisecond
	aheadMost = 64 // for each slot
)

// pace is how long attempts take here, of late. The zero value knows nothing.
type pace struct{ mean time.Duration }

func (p *pace) note(took time.Duration) {
	if p.mean == 0 {
		p.mean = took
		return
	}
	p.mean += (took - p.mean) / 8
}

// ahead is how many tasks are to be held beyond those that run.
func (p *pace) ahead(slots int) int {
	if p.mean <= 0 {
		return 0
	}
	return min(int(int64(slots)*int64(aheadTime)/int64(p.mean)), aheadMost*slots)
}
