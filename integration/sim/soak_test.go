package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soakRounds is how many rounds a seed has in the soak.
const soakRounds = 5

// TestSoak runs new seeds for QUERN_SOAK ("8h"), from QUERN_SEED on (default:
// the present second), each in a process of its own, so that one that stands
// still or panics ends no others. What a failing seed printed is kept in
// QUERN_SOAK_DIR.
func TestSoak(t *testing.T) {
	text := os.Getenv("QUERN_SOAK")
	if text == "" {
		t.Skip("it runs as long as QUERN_SOAK says (make soak)")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("QUERN_SOAK: %v", err)
	}
	next := uint64(time.Now().Unix())
	if s := os.Getenv("QUERN_SEED"); s != "" {
		if next, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("QUERN_SEED: %v", err)
		}
	}
	dir := os.Getenv("QUERN_SOAK_DIR")
	if dir == "" {
		if dir, err = os.MkdirTemp("", "quern-soak"); err != nil {
			t.Fatal(err)
		}
	}
	workers := runtime.NumCPU()
	if s := os.Getenv("QUERN_SOAK_PROCESSES"); s != "" {
		if workers, err = strconv.Atoi(s); err != nil {
			t.Fatalf("QUERN_SOAK_PROCESSES: %v", err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var total soaked
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for time.Now().Before(end) {
				mu.Lock()
				seed := next
				next++
				mu.Unlock()
				out, err := runSeed(exe, seed)
				mu.Lock()
				total.add(out)
				if err != nil {
					path := filepath.Join(dir, fmt.Sprintf("seed-%d.txt", seed))
					if err := os.WriteFile(path, out, 0o644); err != nil {
						t.Error(err)
					}
					t.Errorf("seed %d fails (%v): %s\n\treplay: QUERN_SEEDS=%d QUERN_ROUNDS=%d go test -v -run TestSimulation ./integration/sim", seed, err, path, seed, soakRounds)
				}
				fmt.Fprintf(os.Stderr, "%v\n", &total)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Log(&total)
	if total.seeds == 0 {
		t.Error("no seed ran")
	}
}

// soaked adds up what seeds have reported.
type soaked struct {
	seeds, failed, operations, undecided int
	simulated                            time.Duration
}

var reported = regexp.MustCompile(`seed \d+: (\S+) simulated, (\d+) operations .* undecided \[(.*?)\]`)

func (s *soaked) add(out []byte) {
	s.seeds++
	m := reported.FindSubmatch(bytes.ReplaceAll(out, []byte("\n"), []byte(" ")))
	if bytes.Contains(out, []byte("FAIL")) || m == nil {
		s.failed++
	}
	if m == nil {
		return
	}
	d, _ := time.ParseDuration(string(m[1]))
	n, _ := strconv.Atoi(string(m[2]))
	s.simulated += d
	s.operations += n
	s.undecided += strings.Count(string(m[3]), " of ")
}

func (s *soaked) String() string {
	return fmt.Sprintf("%d seeds, %d failed; %.2f hours simulated, %d operations, %d histories undecided", s.seeds, s.failed, s.simulated.Hours(), s.operations, s.undecided)
}

// runSeed runs one seed in a process of its own. One that stands still is asked
// for its stacks.
func runSeed(exe string, seed uint64) ([]byte, error) {
	const limit = 20 * time.Minute
	ctx, done := context.WithTimeout(context.Background(), limit)
	defer done()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestSimulation$", "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), fmt.Sprintf("QUERN_SEEDS=%d", seed), fmt.Sprintf("QUERN_ROUNDS=%d", soakRounds), "GOMAXPROCS=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.CombinedOutput()
}
