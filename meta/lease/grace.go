package lease

import (
	"slices"
	"time"
)

// Grace is the time a new leader gives the sessions of the last one to come
// back and say what they hold.
type Grace struct {
	missing map[uint64]struct{}
	until   time.Time
}

// NewGrace waits for sessions until until.
func NewGrace(sessions []uint64, until time.Time) *Grace {
	g := &Grace{missing: map[uint64]struct{}{}, until: until}
	for _, id := range sessions {
		g.missing[id] = struct{}{}
	}
	return g
}

// Arrived: the session has come back, or has ended.
func (g *Grace) Arrived(session uint64) { delete(g.missing, session) }

// Over says whether anything may be served that could conflict; if time has
// passed, fence lists the sessions to be ended first.
func (g *Grace) Over(now time.Time) (over bool, fence []uint64) {
	if len(g.missing) == 0 {
		return true, nil
	}
	if now.Before(g.until) {
		return false, nil
	}
	fence = sorted(g.missing)
	slices.Sort(fence)
	return false, fence
}

// Until is when the time runs out.
func (g *Grace) Until() time.Time { return g.until }
