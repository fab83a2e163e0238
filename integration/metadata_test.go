package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmptiedMetadataServer: the leader of three is killed and its directory
// removed. It comes back without a vote, is filled, and votes; what the others
// acknowledged is there when they are killed one after another.
func TestEmptiedMetadataServer(t *testing.T) {
	c := startCluster(t, "--processes", "--meta-servers", "3", "--chunk-servers", "2", "--policy", "1+1")
	writeFile(t, filepath.Join(c.mnt, "f"), "kept")
	for range 2 {
		old := c.leader("")
		c.kill(old)
		if err := os.RemoveAll(filepath.Join(c.data, old)); err != nil {
			t.Fatal(err)
		}
		c.leader(old)
		votes := func() int {
			raw, err := os.ReadFile(filepath.Join(c.data, "run", old+".log"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.Count(string(raw), "this metadata server votes")
		}
		before := votes()
		mustQuern(t, "start", old, "--data", c.data)
		eventually(t, patience, func() error {
			if votes() == before {
				return fmt.Errorf("%s does not vote yet", old)
			}
			s, err := c.status()
			if err != nil {
				return err
			}
			for _, m := range s.Members {
				if !m.Voter || !m.Alive {
					return fmt.Errorf("%s: votes %t, alive %t", m.Name, m.Voter, m.Alive)
				}
			}
			if len(s.Members) != 3 {
				return fmt.Errorf("%d metadata servers", len(s.Members))
			}
			return nil
		})
	}
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != "kept" {
		t.Errorf("read %q", got)
	}
	writeFile(t, filepath.Join(c.mnt, "g"), "more")
}

// TestLostMetadata: a filesystem whose metadata is gone is not taken for a new
// one, unless that is asked for.
func TestLostMetadata(t *testing.T) {
	c := startCluster(t, "--chunk-servers", "2", "--policy", "1+1")
	writeFile(t, filepath.Join(c.mnt, "f"), "lost")
	refused(t, "uses", "up", "--data", c.data, "--new-filesystem")
	c.stop()
	refused(t, "is not gone", "up", "--data", c.data, "--new-filesystem")
	if err := os.RemoveAll(filepath.Join(c.data, "meta-1")); err != nil {
		t.Fatal(err)
	}
	refused(t, "restore it from a copy, or begin a new, empty filesystem with `quern up --new-filesystem`", "up", "--data", c.data)
	refused(t, "restore it from a copy", "meta", "--data", c.data)

	c.args = append(c.args, "--new-filesystem")
	c.start()
	if _, err := os.Stat(filepath.Join(c.mnt, "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("f in a new filesystem: %v", err)
	}
	writeFile(t, filepath.Join(c.mnt, "g"), "new")
	if kept, _ := filepath.Glob(filepath.Join(c.data, "lost-*", "chunkd-*")); len(kept) != 2 {
		t.Errorf("kept of the lost filesystem: %v", kept)
	}
}
