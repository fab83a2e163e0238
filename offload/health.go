package offload

import (
	"cmp"
	"fmt"
	"time"
)

// The states of a device.
const (
	DeviceUnproved    = "unproved"    // it has not yet computed its known answer
	DeviceReady       = "ready"       // it takes tasks
	DeviceQuarantined = "quarantined" // it takes none until it computes its known answer once more
)

// How often a device is proved again.
const (
	probeAfter = 10 * time.Second // since it was quarantined
	probeMost  = 10 * time.Minute
)

// health is what is known of a device: it is offered once it has computed a
// known answer, and no more after failures of two different jobs, or a wrong
// answer, until it computes the answer again. It is pure; the zero value is a
// device that has just been found.
type health struct {
	first  time.Duration // between quarantine and the next proof; 0: probeAfter
	state  string        // "": unproved
	reason string        // of a state that is not ready
	failed uint64        // the job that failed on it since one last succeeded; 0: none
	next   time.Time     // when it is to be proved; zero: at once
	pause  time.Duration
}

func (h *health) ready() bool { return h.state == DeviceReady }

// due says whether the device is to be proved now.
func (h *health) due(now time.Time) bool { return !h.ready() && !now.Before(h.next) }

// proved notes the answer of a proof: nil, or why it was none.
func (h *health) proved(err error, now time.Time) {
	if err == nil {
		h.state, h.reason, h.failed = DeviceReady, "", 0
		return
	}
	h.quarantine(err.Error(), now)
}

// succeeded notes a task that the device has carried out.
func (h *health) succeeded() {
	h.failed, h.pause = 0, 0
}

// failure notes a task that failed on the device.
func (h *health) failure(job uint64, reason string, now time.Time) {
	if !h.ready() {
		return
	}
	if h.failed == 0 || h.failed == job {
		h.failed = job
		return
	}
	h.quarantine(fmt.Sprintf("jobs %d and %d failed on it; the last: %s", h.failed, job, reason), now)
}

func (h *health) quarantine(reason string, now time.Time) {
	h.state, h.reason, h.failed = DeviceQuarantined, reason, 0
	h.pause = min(max(2*h.pause, cmp.Or(h.first, probeAfter)), probeMost)
	h.next = now.Add(h.pause)
}
