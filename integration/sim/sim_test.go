package sim

import (
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/block"
)

// simulate runs one seed.
func simulate(t *testing.T, seed uint64, rounds int) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cfg := Config{Seed: seed, Members: 3, Servers: 5, Clients: 3, Policy: block.Policy{K: 2, M: 1}, Rounds: rounds, Round: time.Minute}
	if os.Getenv("QUERN_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	began := time.Now()
	var r *Report
	bubble(t, func() { r = Run(cfg) })
	ran := time.Since(began)
	v := r.Judge(20 * time.Second)
	t.Logf("%v; %d partitions, undecided %v; %v, judged in %v", r, v.Partitions, v.Undecided, ran.Round(time.Millisecond), (time.Since(began) - ran).Round(time.Millisecond))
	if len(r.Wrong) > 0 {
		t.Errorf("seed %d fails", seed)
	}
}

// bubble runs f in a bubble of synctest, which ends with all that f has started.
// raft forgets what it is asked just as it shuts down: whoever waits for its
// answer then waits for ever, and may be left over.
func bubble(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		stacks := make([]byte, 8<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for s := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(s, "synctest bubble") && !strings.Contains(s, "raft.(*deferError).Error") {
				t.Errorf("%v: %s", v, s)
			}
		}
	}()
	synctest.Test(t, func(*testing.T) { f() })
}

// seeds are those of QUERN_SEEDS ("7" or "1-100"), else those given.
func seeds(t *testing.T, given string) (from, to uint64) {
	t.Helper()
	if s := os.Getenv("QUERN_SEEDS"); s != "" {
		given = s
	}
	a, b, isRange := strings.Cut(given, "-")
	if !isRange {
		b = a
	}
	from, err1 := strconv.ParseUint(a, 10, 64)
	to, err2 := strconv.ParseUint(b, 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("seeds %q: give one, or a range", given)
	}
	return from, to
}

// TestSimulation: a few seeds of a minute of faults each.
func TestSimulation(t *testing.T) {
	for seed, last := seeds(t, "1-3"); seed <= last; seed++ {
		simulate(t, seed, 1)
	}
}
