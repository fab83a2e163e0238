package offload

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	now := time.Unix(1000, 0)
	var h health
	if h.ready() || !h.due(now) {
		t.Error("a device that was just found is offered before it is proved")
	}
	h.failure(1, "x", now)
	h.failure(2, "x", now)
	if h.state != "" {
		t.Error("failures count before it is offered")
	}
	h.proved(nil, now)
	if !h.ready() || h.due(now) {
		t.Error("a proved device is not offered")
	}
	h.failure(1, "crash", now)
	h.failure(1, "crash", now)
	if !h.ready() {
		t.Error("one job alone has put it into quarantine")
	}
	h.succeeded()
	h.failure(2, "crash", now)
	if !h.ready() {
		t.Error("a success between does not count")
	}
	h.failure(3, "hang", now)
	if h.ready() || h.state != DeviceQuarantined || !strings.Contains(h.reason, "jobs 2 and 3") || !strings.Contains(h.reason, "hang") {
		t.Errorf("two different jobs: %+v", h)
	}
	if h.due(now) || !h.due(now.Add(probeAfter)) {
		t.Error("it is to be proved after a pause")
	}
	// Wrong answers make the pauses longer, up to a bound.
	last := time.Duration(0)
	for range 12 {
		now = h.next
		h.proved(errors.New("wrong"), now)
		if pause := h.next.Sub(now); pause < last || pause > probeMost {
			t.Fatalf("a pause of %v after %v", pause, last)
		} else {
			last = pause
		}
	}
	if last != probeMost || h.reason != "wrong" {
		t.Errorf("the last pause is %v, the reason %q", last, h.reason)
	}
	h.proved(nil, now)
	h.succeeded()
	h.failure(4, "x", now)
	h.failure(5, "x", now)
	if h.next.Sub(now) != probeAfter {
		t.Error("a success does not make the next pause short again")
	}
}

// TestHealthRandom: whatever happens, it is never offered and due at once, and
// never quarantined by one job alone.
func TestHealthRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := time.Unix(0, 0)
	var h health
	since := map[uint64]bool{} // jobs that failed since the last success or proof
	for range 20_000 {
		now = now.Add(time.Duration(rnd.Int64N(int64(time.Minute))))
		was := h.ready()
		switch rnd.IntN(4) {
		case 0:
			if h.due(now) {
				var err error
				if rnd.IntN(2) == 0 {
					err = errors.New("wrong")
				}
				h.proved(err, now)
				clear(since)
			}
		case 1:
			h.succeeded()
			clear(since)
		default:
			job := 1 + rnd.Uint64N(3)
			if was {
				since[job] = true
			}
			h.failure(job, "x", now)
			if was && !h.ready() && len(since) < 2 {
				t.Fatal("one job alone has put it into quarantine")
			}
			if was && h.ready() && len(since) > 1 {
				t.Fatal("two jobs failed and it is still offered")
			}
			if !h.ready() {
				clear(since)
			}
		}
		if h.ready() && h.due(now.Add(24*time.Hour)) {
			t.Fatal("it is offered and due")
		}
		if !h.ready() && !h.due(now.Add(probeMost)) {
			t.Fatal("it never comes back")
		}
	}
}
