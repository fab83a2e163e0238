package chunkd

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

func TestPutGet(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	for i, n := range []int{1, 4095, 4096, block.LeafSize - 1, block.LeafSize, block.LeafSize + 1, 1 << 20, block.MaxBlockSize} {
		id := shardID{uint64(i), uint32(i)}
		put(t, s, id, shardBytes(id, n))
		mustHave(t, s, id, shardBytes(id, n))
	}
	if _, err := get(s, shardID{99, 0}); wire.CodeOf(err) != wire.NotFound {
		t.Errorf("a shard that is not there: %v", err)
	}
	st := s.Stats()
	if st.Shards != 8 || st.Used < block.MaxBlockSize || st.Free <= 0 || st.ReadOnly {
		t.Errorf("%+v", st)
	}
	ids, err := s.List(&wire.ShardID{Block: 2, Index: 2}, 3)
	if err != nil || len(ids) != 3 || ids[0].Block != 3 || ids[2].Block != 5 {
		t.Errorf("list: %v, %v", ids, err)
	}
}

func TestPutRefuses(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	id := shardID{1, 0}
	data := shardBytes(id, 100_000)
	for what, change := range map[string]func(*wire.PutShard) []byte{
		"a short payload":   func(*wire.PutShard) []byte { return data[:99_999] },
		"no payload":        func(q *wire.PutShard) []byte { q.Length = 0; return nil },
		"another length":    func(q *wire.PutShard) []byte { q.Length++; return data },
		"too few leaves":    func(q *wire.PutShard) []byte { q.Leaves = q.Leaves[:32]; return data },
		"no leaves":         func(q *wire.PutShard) []byte { q.Leaves = nil; return data },
		"another root":      func(q *wire.PutShard) []byte { q.Root[3]++; return data },
		"a short root":      func(q *wire.PutShard) []byte { q.Root = q.Root[:31]; return data },
		"an index too high": func(q *wire.PutShard) []byte { q.Index = 40; return data },
		"a huge index":      func(q *wire.PutShard) []byte { q.Index = math.MaxUint32; return data },
		"a shard too long": func(q *wire.PutShard) []byte {
			long := make([]byte, block.MaxBlockSize+1)
			l := putRequest(id, long)
			q.Length, q.Leaves, q.Root = l.Length, l.Leaves, l.Root
			return long
		},
	} {
		q := putRequest(id, data)
		payload := change(q)
		if _, err := s.Put(t.Context(), q, payload); wire.CodeOf(err) != wire.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := s.Stats().Shards; n != 0 {
		t.Errorf("%d shards are stored", n)
	}
}

func TestPutIsIdempotent(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	id := shardID{1, 0}
	data := shardBytes(id, 5000)
	put(t, s, id, data)
	used := s.Stats().Used
	put(t, s, id, data)
	other := shardBytes(shardID{2, 0}, 5000)
	_, err := s.Put(t.Context(), putRequest(id, other), other)
	mustCode(t, err, wire.Exists)
	mustHave(t, s, id, data)
	if s.Stats().Used != used || s.Stats().Shards != 1 {
		t.Errorf("it was stored twice: %+v", s.Stats())
	}
}

func TestConcurrentPutsOfOneShard(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	id := shardID{1, 0}
	data := shardBytes(id, 5000)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Put(context.Background(), putRequest(id, data), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Shards != 1 || st.Puts != 1 {
		t.Errorf("%+v", st)
	}
}

// TestReopen closes and opens a store with everything a store can hold.
func TestReopen(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = 1 << 20
	s := openStore(t, cfg)
	ids := make([]shardID, 100)
	for i := range ids {
		ids[i] = shardID{uint64(i + 1), uint32(i % 5)}
		put(t, s, ids[i], shardBytes(ids[i], 50_000))
	}
	if err := s.Delete(t.Context(), []*wire.ShardID{ids[3].wire(), ids[50].wire(), {Block: 12345}}); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), putRequest(ids[0], shardBytes(ids[0], 1)), shardBytes(ids[0], 1))
	mustCode(t, err, wire.Shutdown)

	s = openStore(t, cfg)
	for i, id := range ids {
		if i == 3 || i == 50 {
			_, err := get(s, id)
			mustCode(t, err, wire.NotFound)
			continue
		}
		mustHave(t, s, id, shardBytes(id, 50_000))
	}
	after := s.Stats()
	if after.Shards != before.Shards || after.Used != before.Used || after.Segments < 5 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestDeleteGivesSpaceBack holds deletion to its promise about the disk, down to
// removing segments in which nothing lives.
func TestDeleteGivesSpaceBack(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = 1 << 20
	s := openStore(t, cfg)
	var ids []*wire.ShardID
	for i := range 40 {
		id := shardID{uint64(i + 1), 0}
		put(t, s, id, shardBytes(id, 100_000))
		ids = append(ids, id.wire())
	}
	if err := s.Delete(t.Context(), ids[:len(ids)-1]); err != nil {
		t.Fatal(err)
	}
	if n := onDisk(t, cfg.Dir); n > 300_000+2*allocateStep {
		t.Errorf("%d bytes are still on the disk", n)
	}
	s.mu.Lock()
	err := s.checkpoint(true)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Shards != 1 || st.Segments > 2 {
		t.Errorf("%+v", st)
	}
	s.Close()
	s = openStore(t, cfg)
	last := shardID{40, 0}
	mustHave(t, s, last, shardBytes(last, 100_000))
	if n := onDisk(t, cfg.Dir); n > 300_000 {
		t.Errorf("%d bytes are on the disk for one shard", n)
	}
	// A deleted shard may come back, with other bytes.
	put(t, s, shardID{1, 0}, shardBytes(shardID{77, 7}, 10))
	mustHave(t, s, shardID{1, 0}, shardBytes(shardID{77, 7}, 10))
}

// onDisk is what the segments take.
func onDisk(t testing.TB, dir string) int64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segments", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, name := range names {
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		n += st.Blocks * 512
	}
	return n
}

func TestGroupCommitSharesSyncs(t *testing.T) {
	x := &faults{}
	cfg := testConfig(t.TempDir())
	cfg.wrap = x.wrap
	s := openStore(t, cfg)
	put(t, s, shardID{1, 0}, []byte("first"))
	x.mu.Lock()
	x.syncs = 0
	x.mu.Unlock()
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := shardID{uint64(i + 2), 0}
			data := shardBytes(id, 1000)
			if _, err := s.Put(context.Background(), putRequest(id, data), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.syncs >= n/2 {
		t.Errorf("%d syncs for %d puts", x.syncs, n)
	}
}

// TestGroup looks at the order of rounds without a disk.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan error)
		running := 0
		g := &group{sync: func() error { running++; return <-let }}
		results := make(chan error, 10)
		wait := func(ctx context.Context) { go func() { results <- g.wait(ctx) }() }

		wait(t.Context()) // syncs
		synctest.Wait()
		for range 4 {
			wait(t.Context()) // share the next round
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx)
		synctest.Wait()
		cancel()
		if err := <-results; err != context.Canceled {
			t.Fatalf("who gave up got %v", err)
		}
		if running != 1 {
			t.Fatalf("%d syncs at once", running)
		}
		let <- nil
		if err := <-results; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if running != 2 {
			t.Fatal("the next round did not start")
		}
		wait(t.Context())
		synctest.Wait()
		let <- syscall.EIO
		for range 4 {
			if err := <-results; err != syscall.EIO {
				t.Fatalf("a round that failed gave %v", err)
			}
		}
		// The round after it must not sync, nor any other.
		if err := <-results; err != syscall.EIO || running != 2 {
			t.Fatalf("%v after a failed sync, %d syncs", err, running)
		}
		if err := g.wait(t.Context()); err != syscall.EIO {
			t.Fatal(err)
		}
	})
}

func TestSyncFails(t *testing.T) {
	x := &faults{}
	cfg := testConfig(t.TempDir())
	cfg.wrap = x.wrap
	s := openStore(t, cfg)
	good, bad := shardID{1, 0}, shardID{2, 0}
	put(t, s, good, shardBytes(good, 1000))
	x.set(nil, syscall.EIO)
	_, err := s.Put(t.Context(), putRequest(bad, shardBytes(bad, 1000)), shardBytes(bad, 1000))
	mustCode(t, err, wire.Unavailable)
	if st := s.Stats(); !st.ReadOnly || st.Fault == nil {
		t.Errorf("the heartbeat will not say that the disk fails: %+v", st)
	}
	s.probe()
	if !s.Stats().ReadOnly {
		t.Error("a probe that failed cleared the fault")
	}
	_, err = get(s, bad)
	mustCode(t, err, wire.NotFound)
	mustHave(t, s, good, shardBytes(good, 1000))

	x.set(nil, nil)
	s.probe()
	if s.Stats().ReadOnly {
		t.Error("the disk works again")
	}
	put(t, s, bad, shardBytes(bad, 1000))
	if l, err := s.Locate(t.Context(), bad.block, bad.index); err != nil || l.Segment == 1 {
		t.Errorf("the segment whose sync failed is still used: %+v, %v", l, err)
	}
	s.Close()
	s = openStore(t, testConfig(cfg.Dir))
	mustHave(t, s, good, shardBytes(good, 1000))
	mustHave(t, s, bad, shardBytes(bad, 1000))
}

func TestDiskFull(t *testing.T) {
	x := &faults{}
	cfg := testConfig(t.TempDir())
	cfg.wrap = x.wrap
	var now atomic.Int64
	cfg.Now = func() time.Time { return time.Unix(1_700_000_000, now.Load()) }
	s := openStore(t, cfg)
	a, b := shardID{1, 0}, shardID{2, 0}
	put(t, s, a, shardBytes(a, 100_000))
	x.set(syscall.ENOSPC, nil)
	big := shardBytes(b, block.MaxBlockSize)
	for i := range 6 {
		id := shardID{uint64(100 + i), 0} // beyond what is allocated ahead
		_, err := s.Put(t.Context(), putRequest(id, big), big)
		mustCode(t, err, wire.NoSpace)
	}
	if !s.Stats().ReadOnly || s.Stats().Free != 0 {
		t.Errorf("%+v", s.Stats())
	}
	mustHave(t, s, a, shardBytes(a, 100_000))
	x.set(nil, nil)
	now.Add(int64(fullFor))
	if s.Stats().ReadOnly { // the temporary directory has room
		t.Error("it does not come back")
	}
	put(t, s, b, big)
	mustHave(t, s, b, big)
	if err := s.Delete(t.Context(), []*wire.ShardID{a.wire()}); err != nil {
		t.Fatal(err)
	}
}

func TestCapacityAndReserve(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Capacity = 20 << 20
	s := openStore(t, cfg)
	data := shardBytes(shardID{1, 0}, 1<<20)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		_, err = s.Put(t.Context(), putRequest(shardID{uint64(n), 0}, data), data)
	}
	mustCode(t, err, wire.NoSpace)
	if n < 18 || n > 20 || !s.Stats().ReadOnly || s.Stats().Total > cfg.Capacity {
		t.Errorf("full after %d shards of 1 MiB: %+v", n, s.Stats())
	}
	if err := s.Delete(t.Context(), []*wire.ShardID{{Block: 0}, {Block: 1}, {Block: 2}, {Block: 3}, {Block: 4}, {Block: 5}}); err != nil {
		t.Fatal(err)
	}
	put(t, s, shardID{1000, 0}, data)
	s.Close()

	cfg.Capacity, cfg.Reserve = 0, math.MaxInt64/2
	s = openStore(t, cfg)
	_, err = s.Put(t.Context(), putRequest(shardID{2000, 0}, data), data)
	mustCode(t, err, wire.NoSpace)
	mustHave(t, s, shardID{1000, 0}, data)
}

func TestOpenRefuses(t *testing.T) {
	expect := func(t *testing.T, cfg Config, code wire.Code, words ...string) {
		t.Helper()
		s, err := Open(cfg)
		if err == nil {
			s.Close()
		}
		mustCode(t, err, code)
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	filled := func(t *testing.T) Config {
		cfg := testConfig(t.TempDir())
		s := openStore(t, cfg)
		put(t, s, shardID{1, 0}, []byte("hello"))
		s.Close()
		return cfg
	}
	t.Run("configuration", func(t *testing.T) {
		expect(t, Config{}, wire.Invalid)
		expect(t, Config{Dir: t.TempDir(), Key: testKey}, wire.Invalid, "node")
		expect(t, Config{Dir: t.TempDir(), Node: 1, Key: testKey[:5]}, wire.Invalid, "key")
	})
	t.Run("second opener", func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		openStore(t, cfg)
		expect(t, cfg, wire.Busy, cfg.Dir, "another process")
	})
	t.Run("another server", func(t *testing.T) {
		cfg := filled(t)
		cfg.Node = 2
		expect(t, cfg, wire.Invalid, "store", "belongs to server 1")
	})
	t.Run("damaged identity", func(t *testing.T) {
		cfg := filled(t)
		os.WriteFile(filepath.Join(cfg.Dir, "store"), []byte("what"), 0o600)
		expect(t, cfg, wire.Corrupt, filepath.Join(cfg.Dir, "store"))
		os.Remove(filepath.Join(cfg.Dir, "store"))
		expect(t, cfg, wire.Corrupt, filepath.Join(cfg.Dir, "store"))
	})
	t.Run("damaged segment header", func(t *testing.T) {
		cfg := filled(t)
		os.RemoveAll(filepath.Join(cfg.Dir, "index"))
		flip(t, filepath.Join(cfg.Dir, "segments", segmentName(1)), 20)
		expect(t, cfg, wire.Corrupt, segmentName(1), "checksum")
	})
	t.Run("foreign file", func(t *testing.T) {
		cfg := filled(t)
		os.WriteFile(filepath.Join(cfg.Dir, "segments", "notes.txt"), nil, 0o600)
		expect(t, cfg, wire.Corrupt, "notes.txt")
	})
	t.Run("damaged index", func(t *testing.T) {
		cfg := filled(t)
		names, _ := filepath.Glob(filepath.Join(cfg.Dir, "index", "MANIFEST-*"))
		for _, n := range names {
			os.Remove(n)
		}
		expect(t, cfg, wire.Corrupt, filepath.Join(cfg.Dir, "index"))
		// And what it advises works.
		os.RemoveAll(filepath.Join(cfg.Dir, "index"))
		mustHave(t, openStore(t, cfg), shardID{1, 0}, []byte("hello"))
	})
	t.Run("not a directory", func(t *testing.T) {
		cfg := testConfig(filepath.Join(t.TempDir(), "file"))
		os.WriteFile(cfg.Dir, nil, 0o600)
		expect(t, cfg, wire.NotDir, "file")
	})
}

// TestMissingSegment loses a segment file: what was in it is reported, the
// rest goes on.
func TestMissingSegment(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = 1 << 20
	s := openStore(t, cfg)
	for i := range 30 {
		put(t, s, shardID{uint64(i), 0}, shardBytes(shardID{uint64(i), 0}, 100_000))
	}
	s.Close()
	os.Remove(filepath.Join(cfg.Dir, "segments", segmentName(1)))
	s = openStore(t, cfg)
	_, err := get(s, shardID{0, 0})
	mustCode(t, err, wire.Corrupt)
	mustHave(t, s, shardID{29, 0}, shardBytes(shardID{29, 0}, 100_000))
	got, err := s.Scrub(t.Context(), 0)
	if err != nil || len(got.Bad) == 0 || got.Shards != 30 {
		t.Fatalf("%+v, %v", got, err)
	}
	// Told and dropped, they can be put anew, and the counts are right.
	if err := s.remove(t.Context(), []shardID{{0, 0}}, nil); err != nil {
		t.Fatal(err)
	}
	put(t, s, shardID{0, 0}, shardBytes(shardID{0, 0}, 100_000))
	mustHave(t, s, shardID{0, 0}, shardBytes(shardID{0, 0}, 100_000))
	if s.Stats().Shards != 30 {
		t.Errorf("%+v", s.Stats())
	}
}

func TestScrub(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	for i := range 20 {
		id := shardID{uint64(i), 0}
		put(t, s, id, shardBytes(id, 200_000))
	}
	got, err := s.Scrub(t.Context(), 0)
	if err != nil || got.Shards != 20 || got.Bytes != 20*200_000 || len(got.Bad) != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	damage(t, s, shardID{3, 0}, 199_999)
	damage(t, s, shardID{5, 0}, 0)
	damage(t, s, shardID{7, 0}, -1) // a leaf digest
	got, err = s.Scrub(t.Context(), 0)
	if err != nil || len(got.Bad) != 3 || got.Bad[0].Block != 3 || got.Bad[1].Block != 5 || got.Bad[2].Block != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	// A bad shard is replaced by a Put of the same, unlike a good one.
	id := shardID{3, 0}
	put(t, s, id, shardBytes(id, 200_000))
	mustHave(t, s, id, shardBytes(id, 200_000))
	if got, err = s.Scrub(t.Context(), 0); err != nil || len(got.Bad) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Scrub(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled scrub: %v", err)
	}
}
