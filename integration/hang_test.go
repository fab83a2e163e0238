package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTooFewServers: with too few servers alive a read or a write fails within
// 30 s, and works again when they are back, without a remount.
func TestTooFewServers(t *testing.T) {
	c := startCluster(t, "--processes", "--meta-servers", "3", "--policy", "4+2")
	want := pattern(1, 3<<20)
	if err := writeSynced(filepath.Join(c.mnt, "f"), want); err != nil {
		t.Fatal(err)
	}
	// Half of the chunk servers: fewer than 4 are left for a read, fewer than 5
	// for a write.
	gone := []string{"chunkd-1", "chunkd-3", "chunkd-5"}
	for _, name := range gone {
		c.kill(name)
	}
	// A mount without a cache, so that reads go to the servers.
	cold := c.secondMount()
	began := time.Now()
	err := within(t, 2*answerLimit, "a read", func() error { return copyAll(new(bytes.Buffer), filepath.Join(cold.dir, "f")) })
	if !errors.Is(err, unix.EIO) {
		t.Errorf("a read with 3 of 6 servers: %v, wanted EIO", err)
	}
	readTook := time.Since(began)
	began = time.Now()
	err = within(t, 2*answerLimit, "a write", func() error { return writeSynced(filepath.Join(c.mnt, "g"), pattern(2, 1<<20)) })
	if !errors.Is(err, unix.EIO) {
		t.Errorf("a write with 3 of 6 servers: %v, wanted EIO", err)
	}
	t.Logf("EIO after %v for the read, %v for the write", readTook, time.Since(began))
	if readTook > answerLimit || time.Since(began) > answerLimit {
		t.Errorf("more than %v", answerLimit)
	}
	// Metadata does not depend on chunk servers.
	if _, err := os.Stat(filepath.Join(c.mnt, "f")); err != nil {
		t.Error(err)
	}
	c.restart(gone...)
	eventually(t, patience, func() error {
		return within(t, 2*answerLimit, "a write", func() error { return writeSynced(filepath.Join(c.mnt, "h"), want) })
	})
	eventually(t, patience, func() error {
		got, err := os.ReadFile(filepath.Join(cold.dir, "f"))
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("wrong bytes")
		}
		return err
	})

	// The majority of the metadata servers.
	c.kill("meta-1")
	c.kill("meta-2")
	began = time.Now()
	err = within(t, 2*answerLimit, "a create", func() error { return os.Mkdir(filepath.Join(c.mnt, "d"), 0o755) })
	if !errors.Is(err, unix.EIO) {
		t.Errorf("a create without a majority of the metadata servers: %v, wanted EIO", err)
	}
	t.Logf("EIO after %v for the create", time.Since(began))
	c.restart("meta-1", "meta-2")
	eventually(t, patience, func() error {
		err := within(t, 2*answerLimit, "a create", func() error { return os.Mkdir(filepath.Join(c.mnt, "d"), 0o755) })
		if errors.Is(err, os.ErrExist) {
			return nil // it was carried out when they were back
		}
		return err
	})
	got, err := os.ReadFile(filepath.Join(c.mnt, "f"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("in the end: %d bytes, %v", len(got), err)
	}
}

// TestKilledMount: the next `quern up` cleans up what a killed one left at the
// mount point, and does not wait for its leases.
func TestKilledMount(t *testing.T) {
	c := startCluster(t)
	if err := writeSynced(filepath.Join(c.mnt, "f"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	// What a start takes here when there is no lease to wait for.
	began := time.Now()
	c.stop()
	c.start()
	restart := time.Since(began)
	c.killAll()
	if err := unix.Statfs(c.mnt, new(unix.Statfs_t)); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("the mount point of a killed process: %v", err)
	}
	began = time.Now()
	c.start()
	writeFile(t, filepath.Join(c.mnt, "f"), "y")
	if took := time.Since(began); took > 2*restart+7*time.Second {
		t.Errorf("the restart took %v: did it wait for the lease of the dead mount?", took)
	}
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != "y" {
		t.Errorf("%q", got)
	}
}
