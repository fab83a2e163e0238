package sim

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// simulate runs one seed.
func simulate(t *testing.T, seed uint64, rounds int) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cfg := ConfigOf(seed)
	cfg.Rounds = rounds
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

// seeds are those of QUERN_SEEDS ("7" or "1-100"), if it is set.
func seeds(t *testing.T) (all []uint64) {
	t.Helper()
	text := os.Getenv("QUERN_SEEDS")
	if text == "" {
		return nil
	}
	a, b, isRange := strings.Cut(text, "-")
	if !isRange {
		b = a
	}
	from, err1 := strconv.ParseUint(a, 10, 64)
	to, err2 := strconv.ParseUint(b, 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("QUERN_SEEDS=%s: give one seed, or a range", text)
	}
	for ; from <= to; from++ {
		all = append(all, from)
	}
	return all
}

// rounds are those of QUERN_ROUNDS, else one.
func rounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("QUERN_ROUNDS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("QUERN_ROUNDS=%s: %v", text, err)
	}
	return n
}

// TestSimulation runs the seeds that have found something, or those of
// QUERN_SEEDS, with a minute of faults in each of QUERN_ROUNDS rounds.
func TestSimulation(t *testing.T) {
	if all := seeds(t); all != nil {
		for _, seed := range all {
			simulate(t, seed, rounds(t))
		}
		return
	}
	text, err := os.ReadFile("testdata/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var seed uint64
		var rounds int
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if _, err := fmt.Sscan(line, &seed, &rounds); err != nil {
			t.Fatalf("testdata/seeds.txt: %q: %v", line, err)
		}
		simulate(t, seed, rounds)
	}
}
