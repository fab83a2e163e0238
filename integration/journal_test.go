package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// journal writes files with fsync and remembers what was acknowledged, so that
// it can be looked for later.
type journal struct {
	dir     string
	mu      sync.Mutex
	entries []entry
	errs    []error
	longest time.Duration // that one write, with its fsync, took

	stopping chan struct{}
	wg       sync.WaitGroup
}

type entry struct {
	name string
	seed uint64
	size int
}

// startJournal starts writers below dir, each of a directory of its own.
func startJournal(dir string, writers int) *journal {
	j := &journal{dir: dir, stopping: make(chan struct{})}
	for w := range writers {
		j.wg.Go(func() { j.write(w) })
	}
	return j
}

func (j *journal) write(writer int) {
	sub := fmt.Sprintf("w%d", writer)
	for n := uint64(0); ; n++ {
		select {
		case <-j.stopping:
			return
		default:
		}
		// A new directory now and then, so that names are under test as well.
		dir := filepath.Join(sub, fmt.Sprintf("d%d", n/50))
		seed := n<<8 | uint64(writer)
		e := entry{name: filepath.Join(dir, fmt.Sprintf("f%d", n)), seed: seed, size: sizeOf(seed)}
		began := time.Now()
		err := j.writeOne(dir, e)
		took := time.Since(began)
		j.mu.Lock()
		j.longest = max(j.longest, took)
		if err != nil {
			j.errs = append(j.errs, fmt.Errorf("%s: %w", e.name, err))
			j.mu.Unlock()
			return
		}
		j.entries = append(j.entries, e)
		j.mu.Unlock()
	}
}

// sizeOf spreads sizes over inline, small, and several blocks' worth.
func sizeOf(seed uint64) int {
	switch seed % 13 {
	case 0:
		return 3<<20 + int(seed%4099)
	case 1, 2, 3:
		return 100_000 + int(seed%70_001)
	case 4, 5:
		return int(seed % 2000)
	}
	return 4096 + int(seed%9001)
}

// writeOne makes one file durable under its final name: written aside, synced,
// renamed, its directory synced, as careful programs do it.
func (j *journal) writeOne(dir string, e entry) error {
	full := filepath.Join(j.dir, dir)
	if err := os.MkdirAll(full, 0o755); err != nil {
		return err
	}
	path := filepath.Join(j.dir, e.name)
	if err := writeSynced(path+".tmp", pattern(e.seed, e.size)); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(full)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// stop ends the writers and returns the errors that they saw.
func (j *journal) stop() []error {
	close(j.stopping)
	j.wg.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.errs
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}

// waitFor waits until n more files have been acknowledged.
func (j *journal) waitFor(t *testing.T, n int, limit time.Duration) {
	t.Helper()
	have := j.count()
	eventually(t, limit, func() error {
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.errs) > 0 {
			t.Fatalf("a writer saw an error: %v", errors.Join(j.errs...))
		}
		if len(j.entries) < have+n {
			return fmt.Errorf("%d of %d files were acknowledged", len(j.entries)-have, n)
		}
		return nil
	})
}

// check reads every acknowledged file below dir (another mount, or a later one)
// and compares it bit for bit.
func (j *journal) check(t *testing.T, dir string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	bad := 0
	for _, e := range j.entries {
		got, err := os.ReadFile(filepath.Join(dir, e.name))
		switch {
		case err != nil:
			t.Errorf("acknowledged, and now: %v", err)
		case len(got) != e.size:
			t.Errorf("%s: %d bytes, %d were acknowledged", e.name, len(got), e.size)
		case !bytes.Equal(got, pattern(e.seed, e.size)):
			t.Errorf("%s: its bytes are not those that were acknowledged", e.name)
		default:
			continue
		}
		if bad++; bad > 10 {
			t.Fatal("and so on")
		}
	}
}
