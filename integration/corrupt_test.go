package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBitFlips: bits flipped on the disks of any two chunk servers are found
// when they are read, and never reach the reader.
func TestBitFlips(t *testing.T) {
	c := startCluster(t)
	const files = 12
	for i := range files {
		if err := writeSynced(filepath.Join(c.mnt, fmt.Sprintf("f%d", i)), pattern(uint64(i), 1<<20+i*77_777)); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c.stop()
	flipped := 0
	for _, server := range r.Perm(6)[:2] {
		flipped += flipBits(t, r, filepath.Join(c.data, fmt.Sprintf("chunkd-%d", server+1)))
	}
	if flipped == 0 {
		t.Fatal("no segment files were found to damage")
	}
	t.Logf("%d bits flipped", flipped)
	c.start()
	for round := range 2 {
		for i := range files {
			path := filepath.Join(c.mnt, fmt.Sprintf("f%d", i))
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if !bytes.Equal(got, pattern(uint64(i), 1<<20+i*77_777)) {
				t.Fatalf("round %d: wrong bytes of %s reached the reader", round, path)
			}
		}
	}
	// What was found is rebuilt, so that all is well again in the end.
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
}

// flipBits flips a bit in every 16 KiB of every segment below dir.
func flipBits(t *testing.T, r *rand.Rand, dir string) int {
	t.Helper()
	flipped := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(filepath.Base(path), "seg") && !strings.Contains(filepath.Dir(path), "seg") {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		var b [1]byte
		for at := int64(8192); at < info.Size(); at += 16 << 10 {
			off := at + r.Int64N(min(16<<10, info.Size()-at))
			if _, err := f.ReadAt(b[:], off); err != nil {
				return err
			}
			if b[0] == 0 {
				continue // perhaps a hole: nothing there to damage
			}
			b[0] ^= 1 << r.IntN(8)
			if _, err := f.WriteAt(b[:], off); err != nil {
				return err
			}
			flipped++
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return flipped
}
