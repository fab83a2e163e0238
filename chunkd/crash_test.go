package chunkd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

const crashDir = "QUERN_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

// crashSize is the size of a shard in the crash tests: small and large ones.
func crashSize(id shardID) int { return 1 + int(id.block*7919%9)*int(id.block*104729%20_000) }

func crashConfig(dir string) Config {
	cfg := testConfig(dir)
	cfg.SegmentSize = 4 << 20
	return cfg
}

// crashChild puts and deletes until it is killed, and says on its standard
// output what was acknowledged: "put N", "deleted N"; "deleting N" comes before the
// call.
func crashChild(dir string) {
	s, err := Open(crashConfig(dir))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var first uint64 = 1
	if ids, err := s.List(nil, 1<<30); err == nil && len(ids) > 0 {
		first = ids[len(ids)-1].Block + 1000
	}
	ctx := context.Background()
	var mu sync.Mutex // one line at a time
	say := func(what string, n uint64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what, n)
	}
	for w := range uint64(8) {
		go func() {
			for n := first + w; ; n += 8 {
				id := shardID{n, 0}
				data := shardBytes(id, crashSize(id))
				if _, err := s.Put(ctx, putRequest(id, data), data); err != nil {
					say("error "+err.Error(), n)
				}
				say("put", n)
				if n%3 == 0 {
					say("deleting", n)
					if err := s.Delete(ctx, []*wire.ShardID{id.wire()}); err != nil {
						say("error "+err.Error(), n)
					}
					say("deleted", n)
				}
			}
		}()
	}
	select {}
}

// TestKill kills a process in the middle of puts and deletions, again and again
// on one directory, and looks for what it had acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	state := map[uint64]string{}
	r := seeded(t)
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		killAt := 50 + r.IntN(800)
		for n := 0; lines.Scan(); n++ {
			var what string
			var block uint64
			if _, err := fmt.Sscan(lines.Text(), &what, &block); err != nil || what == "error" {
				t.Errorf("the child said %q", lines.Text())
				cmd.Process.Kill()
				break
			}
			state[block] = what
			if n == killAt {
				cmd.Process.Kill() // what it still said is read all the same
			}
		}
		cmd.Wait()
		if t.Failed() {
			return
		}
		s, err := Open(crashConfig(dir))
		if err != nil {
			t.Fatal(err)
		}
		checkState(t, s, state)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %d shards in all", round, len(state))
	}
}

// checkState holds a store to what was acknowledged.
func checkState(t *testing.T, s *Store, state map[uint64]string) {
	t.Helper()
	for n, what := range state {
		id := shardID{n, 0}
		got, err := get(s, id)
		switch {
		case what == "put" && (err != nil || !bytes.Equal(got, shardBytes(id, crashSize(id)))):
			t.Errorf("%v was acknowledged, now: %v", id, err)
		case what == "deleted" && wire.CodeOf(err) != wire.NotFound:
			t.Errorf("%v was deleted, now: %v", id, err)
		}
	}
	// Nothing else is indexed that cannot be read, but what is in the middle of
	// a deletion; and the counts are true.
	ids, err := s.List(nil, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	var used int64
	for _, w := range ids {
		id := shardID{w.Block, w.Index}
		if got, err := get(s, id); err != nil || !bytes.Equal(got, shardBytes(id, crashSize(id))) {
			t.Errorf("%v is indexed (last heard: %q), but: %v", id, state[id.block], err)
		}
		n := crashSize(id)
		used += recordSize(block.LeafCount(n)*block.HashSize, n)
	}
	if st := s.Stats(); st.Shards != int64(len(ids)) || st.Used != used {
		t.Errorf("%d shards in %d bytes are counted as %+v", len(ids), used, st)
	}
}

// TestTornTail cuts the log of a store that was never closed at arbitrary
// places: what lies before the cut is there, what lies behind it is gone.
func TestTornTail(t *testing.T) {
	r := seeded(t)
	cfg := testConfig(t.TempDir())
	s := openStore(t, cfg)
	var ids []shardID
	for i := range 30 {
		id := shardID{uint64(i + 1), 0}
		put(t, s, id, shardBytes(id, crashSize(id)))
		ids = append(ids, id)
	}
	end := map[shardID]int64{}
	var size int64
	for _, id := range ids {
		l, err := s.Locate(t.Context(), id.block, 0)
		if err != nil {
			t.Fatal(err)
		}
		end[id] = l.Off + int64(l.Length)
		size = max(size, end[id])
	}
	for range 20 {
		cut := segmentHeaderSize + r.Int64N(size)
		dir := copyDir(t, cfg.Dir)
		path := filepath.Join(dir, "segments", segmentName(1))
		if r.IntN(2) == 0 {
			if err := os.Truncate(path, cut); err != nil {
				t.Fatal(err)
			}
		} else { // zeros to the end, as after a power cut
			if err := errors.Join(os.Truncate(path, cut), os.Truncate(path, size)); err != nil {
				t.Fatal(err)
			}
		}
		cfg := testConfig(dir)
		s2, err := Open(cfg)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for _, id := range ids {
			got, err := get(s2, id)
			if here := end[id] <= cut; here && (err != nil || !bytes.Equal(got, shardBytes(id, crashSize(id)))) {
				t.Errorf("cut at %d: %v, which ends at %d: %v", cut, id, end[id], err)
			} else if !here && wire.CodeOf(err) != wire.NotFound && len(bytes.TrimRight(shardBytes(id, crashSize(id)), "\x00")) == crashSize(id) {
				t.Errorf("cut at %d: %v, which ends at %d, is still indexed: %v", cut, id, end[id], err)
			}
		}
		// It goes on working, and what it writes survives the next start.
		next := shardID{1000, 0}
		put(t, s2, next, shardBytes(next, 70_000))
		s2.Close()
		s2 = openStore(t, cfg)
		mustHave(t, s2, next, shardBytes(next, 70_000))
		s2.Close()
	}
}

// powerDisk remembers what has not been synced, to undo it at a cut of the
// power.
type powerDisk struct {
	mu    sync.Mutex
	undo  map[string][]undoPage // by file name, oldest first
	epoch int
}

type undoPage struct {
	epoch int
	off   int64
	old   []byte
}

func (d *powerDisk) wrap(path string, f file) file {
	return &powerFile{file: f, d: d, name: filepath.Base(path)}
}

type powerFile struct {
	file
	d    *powerDisk
	name string
}

// before keeps the pages that a change is about to overwrite.
func (f *powerFile) before(off, n int64) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	for at := off / align * align; at < off+n; at += align {
		old := make([]byte, align)
		_, _ = f.file.ReadAt(old, at) // beyond the end: zeros
		f.d.undo[f.name] = append(f.d.undo[f.name], undoPage{f.d.epoch, at, old})
	}
}

func (f *powerFile) WriteAt(p []byte, off int64) (int, error) {
	f.before(off, int64(len(p)))
	return f.file.WriteAt(p, off)
}

func (f *powerFile) Punch(off, n int64) error {
	f.before(off, n)
	return f.file.Punch(off, n)
}

func (f *powerFile) Datasync() error {
	f.d.mu.Lock()
	f.d.epoch++
	epoch := f.d.epoch
	f.d.mu.Unlock()
	// Whatever is written from now on may or may not be part of the sync.
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	var left []undoPage
	for _, u := range f.d.undo[f.name] {
		if u.epoch >= epoch {
			left = append(left, u)
		}
	}
	f.d.undo[f.name] = left
	return nil // the test's own crash takes the place of the disk's
}

// cut copies dir as it may be after a cut of the power: of the pages that were
// not synced, all or some are as they were before. Pebble's files count as synced: without a
// log it syncs all that its manifest names.
func (d *powerDisk) cut(t *testing.T, r *rand.Rand, dir string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := copyDir(t, dir)
	all := r.IntN(2) == 0
	for name, undo := range d.undo {
		path := filepath.Join(to, "segments", name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for i := len(undo) - 1; i >= 0; i-- { // the newest first
			if (!all && r.IntN(2) == 0) || undo[i].off >= st.Size() {
				continue
			}
			if _, err := f.WriteAt(undo[i].old[:min(align, st.Size()-undo[i].off)], undo[i].off); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	return to
}

// TestPowerCut cuts the power at random moments of concurrent puts and
// deletions.
func TestPowerCut(t *testing.T) {
	r := seeded(t)
	disk := &powerDisk{undo: map[string][]undoPage{}}
	cfg := crashConfig(t.TempDir())
	cfg.wrap = disk.wrap
	s := openStore(t, cfg)

	var mu sync.Mutex // guards state; held for the copy, so that it matches
	state := map[uint64]string{}
	note := func(n uint64, what string) {
		mu.Lock()
		defer mu.Unlock()
		state[n] = what
	}
	var wg sync.WaitGroup
	acked, stop := make(chan struct{}), make(chan struct{})
	for w := range uint64(4) {
		wg.Go(func() {
			for n := 1 + w; ; n += 4 {
				id := shardID{n, 0}
				data := shardBytes(id, crashSize(id))
				if _, err := s.Put(context.Background(), putRequest(id, data), data); err != nil {
					t.Error(err)
					return
				}
				note(n, "put")
				if n%3 == 0 {
					note(n, "deleting")
					if err := s.Delete(context.Background(), []*wire.ShardID{id.wire()}); err != nil {
						t.Error(err)
						return
					}
					note(n, "deleted")
				}
				if n%64 == 0 { // much more often than in life
					s.mu.Lock()
					err := s.checkpoint(n%128 == 0)
					s.mu.Unlock()
					if err != nil {
						t.Error(err)
					}
				}
				select { // writers rest while a cut is looked at
				case acked <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for range 10 {
		for range 10 + r.IntN(50) {
			<-acked
		}
		mu.Lock()
		dir := disk.cut(t, r, cfg.Dir)
		then := map[uint64]string{}
		for n, what := range state {
			then[n] = what
		}
		mu.Unlock()
		// A deletion that was not acknowledged may have destroyed the shard or
		// not; nothing is promised about it.
		s2, err := Open(crashConfig(dir))
		if err != nil {
			t.Error(err)
			break
		}
		checkAcknowledged(t, s2, then)
		s2.Close()
		// A second start, of what the first one made of it.
		s2, err = Open(crashConfig(dir))
		if err != nil {
			t.Error(err)
			break
		}
		checkAcknowledged(t, s2, then)
		s2.Close()
	}
	close(stop)
	wg.Wait()
}

func checkAcknowledged(t *testing.T, s *Store, state map[uint64]string) {
	t.Helper()
	for n, what := range state {
		id := shardID{n, 0}
		got, err := get(s, id)
		switch {
		case what == "put" && (err != nil || !bytes.Equal(got, shardBytes(id, crashSize(id)))):
			t.Errorf("%v was acknowledged, now: %v", id, err)
		case what == "deleted" && wire.CodeOf(err) != wire.NotFound:
			t.Errorf("%v was deleted, now: %v", id, err)
		}
	}
}

// TestRebuildIndex loses the whole index: the log has everything.
func TestRebuildIndex(t *testing.T) {
	cfg := crashConfig(t.TempDir())
	s := openStore(t, cfg)
	state := map[uint64]string{}
	var dead []*wire.ShardID
	for n := range uint64(60) {
		id := shardID{n, 0}
		put(t, s, id, shardBytes(id, crashSize(id)))
		state[n] = "put"
		if n%4 == 0 {
			dead = append(dead, id.wire())
			state[n] = "deleted"
		}
	}
	if err := s.Delete(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	put(t, s, shardID{8, 0}, shardBytes(shardID{8, 0}, crashSize(shardID{8, 0})))
	state[8] = "put"
	s.Close()
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	checkState(t, openStore(t, cfg), state)
}

// TestHoleBeforeRecord has a writer that reserved its place and died before a
// later one that was acknowledged.
func TestHoleBeforeRecord(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := openStore(t, cfg)
	put(t, s, shardID{1, 0}, []byte("before"))
	s.mu.Lock()
	_, _, err := s.reserve(5 * align)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, shardID{2, 0}, []byte("after"))
	s.mu.Lock()
	err = s.checkpoint(true) // must not pass the hole
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	dir := copyDir(t, cfg.Dir)
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, copyDir(t, cfg.Dir)} {
		s2 := openStore(t, testConfig(dir))
		mustHave(t, s2, shardID{1, 0}, []byte("before"))
		mustHave(t, s2, shardID{2, 0}, []byte("after"))
		s2.Close()
	}
}

// TestTailBehindCheckpoint gives up the last record of the log before a
// checkpoint: the next start must not write before that, where no replay looks.
func TestTailBehindCheckpoint(t *testing.T) {
	x := &faults{}
	cfg := testConfig(t.TempDir())
	cfg.wrap = x.wrap
	s := openStore(t, cfg)
	put(t, s, shardID{1, 0}, []byte("before"))
	s.mu.Lock()
	seg, off, err := s.reserve(5 * align) // and never written
	s.done(seg, off)
	err = errors.Join(err, s.checkpoint(true))
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	s2 := openStore(t, testConfig(copyDir(t, cfg.Dir)))
	if s2.active == nil || s2.active.tail != off+5*align {
		t.Errorf("appending goes on at %+v, the checkpoint is at %d", s2.active, off+5*align)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := &record{nonce: 9, at: place{3, align}, id: shardID{5, 6}, length: 100, leaves: 32}
	f.Add(r.encode(), uint64(3), int64(align), uint64(9))
	r = &record{tombstone: true, nonce: 9, at: place{3, align}, length: 24}
	f.Add(r.encode(), uint64(3), int64(align), uint64(9))
	f.Add([]byte("QRNSHARD"), uint64(0), int64(0), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, segment uint64, off int64, nonce uint64) {
		r, err := decodeRecord(b, place{segment, off}, nonce)
		if err != nil {
			return
		}
		if r.length == 0 || r.length > block.MaxBlockSize || r.leaves > 64*block.HashSize || r.size() > block.MaxBlockSize+2*align {
			t.Fatalf("out of bounds: %+v", r)
		}
		// Bytes that the format leaves zero may be anything.
		again, err := decodeRecord(r.encode(), place{segment, off}, nonce)
		if err != nil || *again != *r {
			t.Fatalf("%+v becomes %+v, %v", r, again, err)
		}
	})
}

// FuzzScan gives a whole segment's content to the replay.
func FuzzScan(f *testing.F) {
	leaves := block.Leaves([]byte("shard"))
	r := &record{nonce: 1, at: place{1, segmentHeaderSize}, id: shardID{5, 6}, length: 5, leaves: 32, bodyCRC: bodyCRC(leaves, []byte("shard"))}
	good := append(append(r.encode(), leaves...), "shard"...)
	f.Add(good)
	f.Add(append(make([]byte, align), good...))
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(make([]byte, segmentHeaderSize), b...)
		at := int64(0)
		err := scan(bytes.NewReader(b), place{1, segmentHeaderSize}, 1, int64(len(b)), func(r *record, body []byte) error {
			if r.at.off < at || bodyCRC(body) != r.bodyCRC || len(body) != int(r.leaves+r.length) {
				t.Fatalf("%+v", r)
			}
			at = r.at.off + r.size()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeSegmentHeader(f *testing.F) {
	h := segmentHeader{id: 3, nonce: 4, created: 5}
	f.Add(h.encode(), uint64(3))
	f.Add(make([]byte, segmentHeaderSize), uint64(3))
	f.Add([]byte(strings.Repeat("x", 100)), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, id uint64) {
		h, blank, err := decodeSegmentHeader(b, id)
		if err == nil && !blank && h.id != id {
			t.Fatalf("%+v passed as %d", h, id)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	e := entry{at: place{1, align}, length: 5}
	f.Add(e.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err == nil && !bytes.Equal(e.encode(), b) {
			t.Fatalf("%x becomes %x", b, e.encode())
		}
	})
}
