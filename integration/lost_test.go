package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKillServers: a writer goes on through the death of the leader and of two
// chunk servers; it sees delay, no error, and nothing it was told is lost.
func TestKillServers(t *testing.T) {
	c := startCluster(t, "--processes", "--policy", "4+2")
	j := startJournal(c.mnt, 4)
	j.waitFor(t, 40, patience)

	old := c.leader("")
	began := time.Now()
	c.kill(old)
	// Fail-over, as a user sees it: until a new file has been acknowledged by
	// each of the writers.
	before := j.count()
	eventually(t, patience, func() error {
		if j.count() < before+5 {
			return errors.New("nothing is acknowledged")
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("fail-over from %s to %s: %v until the fifth acknowledgement", old, c.leader(old), took)
	if limit := answerLimit; took > limit || long && took > 5*time.Second { // an idle machine needs 5 s at most
		t.Errorf("fail-over took %v", took)
	}
	c.restart(old)
	j.waitFor(t, 20, patience)

	// One less, and blocks are committed with five shards of six.
	c.kill("chunkd-2")
	j.waitFor(t, 20, patience)
	// Two less, and writers wait, for four shards do not protect what they are
	// told is safe; what there is can be read.
	c.kill("chunkd-5")
	j.check(t, c.mnt)
	c.restart("chunkd-2", "chunkd-5")
	j.waitFor(t, 20, patience)

	if errs := j.stop(); len(errs) > 0 {
		t.Errorf("the writers saw errors: %v", errors.Join(errs...))
	}
	t.Logf("%d files acknowledged, the longest took %v", j.count(), j.longest)
	j.check(t, c.mnt)
	c.checkTree()
	// What was committed with a shard missing gets whole again.
	eventually(t, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		if s.Blocks.Degraded > 0 || s.Blocks.Lost > 0 {
			return fmt.Errorf("blocks: %d degraded, %d lost", s.Blocks.Degraded, s.Blocks.Lost)
		}
		return nil
	})
	// A mount that has nothing cached says the same.
	m := c.secondMount()
	j.check(t, m.dir)
}

// TestKillEverything: kill -9 of all processes at once, again and again in the
// middle of writes.
func TestKillEverything(t *testing.T) {
	rounds := 3
	if long {
		rounds = 10
	}
	for _, kind := range []struct {
		name string
		args []string
	}{
		{"embedded", nil},
		{"processes", []string{"--processes"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			c := newCluster(t, kind.args...)
			var journals []*journal
			for round := range rounds {
				began := time.Now()
				c.start()
				t.Logf("round %d: up within %v", round, time.Since(began))
				for i, j := range journals {
					j.check(t, filepath.Join(c.mnt, fmt.Sprintf("round-%d", i)))
				}
				c.checkTree()
				dir := filepath.Join(c.mnt, fmt.Sprintf("round-%d", round))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				j := startJournal(dir, 4)
				j.waitFor(t, 30+17*round%40, patience)
				c.killAll()
				j.stop() // its errors are those of the mount that is gone
				journals = append(journals, j)
			}
			c.start()
			for i, j := range journals {
				j.check(t, filepath.Join(c.mnt, fmt.Sprintf("round-%d", i)))
			}
			c.checkTree()
		})
	}
}

// checkTree walks the whole mount: every entry can be stat'ed, every file read
// to the end of its size.
func (c *cluster) checkTree() {
	c.t.Helper()
	err := filepath.WalkDir(c.mnt, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".compute" {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if int64(len(raw)) != info.Size() {
				return fmt.Errorf("%s: %d bytes read, its size is %d", path, len(raw), info.Size())
			}
		}
		return nil
	})
	if err != nil {
		c.t.Errorf("the tree is not whole: %v", err)
	}
}
