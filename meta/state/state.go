package state

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quernfs/internal/wire"
)

// Config says where the state lies.
type Config struct {
	Dir string
	Key []byte // the cluster key, with which chunk servers sign their proofs

	FS           vfs.FS // nil: the operating system's
	CacheBytes   int64  // Pebble's block cache; 0: 64 MiB
	MemTableSize uint64 // 0: 16 MiB
	Records      int    // decoded inodes kept for Apply; 0: 8192

	Log *slog.Logger // nil: none
}

// State is the state machine. Apply, Flush and Checkpoint may be called by one
// goroutine at a time; everything else by any number, beside it.
type State struct {
	db    *pebble.DB
	fs    vfs.FS
	cache *pebble.Cache
	lock  *pebble.Lock // of the directory

	// life is held for reading by all that use db, so that Close waits for them.
	life   sync.RWMutex
	closed bool

	// mu guards tx and broken: one Apply at a time.
	mu     sync.Mutex
	tx     tx
	broken error // an Apply that failed half-way; nothing can be applied after it

	openJobs openJobs

	pos atomic.Pointer[position]
}

type position struct{ index, term uint64 }

// Entry is one entry of the log. Index and Term never decrease.
type Entry struct {
	Index, Term uint64
	Command     *wire.Command
}

const format = 1

// Open opens the state in cfg.Dir, or makes an empty one there.
func Open(cfg Config) (*State, error) {
	s := &State{fs: cfg.FS}
	if s.fs == nil {
		s.fs = vfs.Default
	}
	if err := s.open(cfg); err != nil {
		return nil, openError(cfg.Dir, err)
	}
	return s, nil
}

func (s *State) open(cfg Config) error {
	if err := s.fs.MkdirAll(cfg.Dir, 0o755); err != nil {
		return err
	}
	lock, err := pebble.LockDirectory(cfg.Dir, s.fs)
	if err != nil {
		if _, isErrno := errors.AsType[syscall.Errno](err); !isErrno {
			err = errTwice // in this process: Pebble has no value for it
		}
		return err
	}
	s.cache = pebble.NewCache(cmp.Or(cfg.CacheBytes, 64<<20))
	o := s.options(cfg)
	o.Lock = lock
	if s.db, err = pebble.Open(cfg.Dir, o); err == nil {
		s.lock = lock
		if err = s.load(cfg); err == nil {
			return nil
		}
		s.db.Close()
	}
	s.cache.Unref()
	return errors.Join(err, lock.Close())
}

var errTwice = errors.New("it is open already, here or in another process")

func openError(dir string, err error) error {
	code := wire.CodeOf(err)
	switch {
	case pebble.IsCorruptionError(err):
		code = wire.Corrupt
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, errTwice):
		code, err = wire.Busy, errTwice
	}
	return &wire.Error{Code: code, Op: "open the metadata state", Object: dir, Err: err}
}

// options: no log of Pebble's own, since the raft log is the log; Bloom filters,
// since most reads of a create look for what is not there.
func (s *State) options(cfg Config) *pebble.Options {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	o := &pebble.Options{
		FS:                    s.fs,
		Cache:                 s.cache,
		DisableWAL:            true,
		MemTableSize:          cmp.Or(cfg.MemTableSize, 16<<20),
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 20,
		MaxOpenFiles:          512,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                pebbleLog{log},
		EventListener: &pebble.EventListener{BackgroundError: func(err error) {
			log.Error("metadata state: a flush or compaction failed and will be tried again", "dir", cfg.Dir, "err", err)
		}},
	}
	o.EnsureDefaults()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// load reads what Apply keeps in memory.
func (s *State) load(cfg Config) error {
	v := view{r: s.db}
	v.key = paramKey(v.key[:0], pFormat)
	if n, ok := v.number(v.key); ok && n != format {
		return wire.Errorf(wire.Unsupported, "", "", "the state has format %d, this program knows %d", n, format)
	}
	var p position
	v.get(paramKey(nil, pApplied), func(b []byte) (err error) {
		p.index, p.term, err = pair(b)
		return err
	})
	s.pos.Store(&p)
	n := cmp.Or(cfg.Records, 8192)
	s.tx = tx{
		vkey: bytes.Clone(cfg.Key), inodes: newRecords[wire.Inode](n), blocks: newRecords[wire.Block](n),
		sessions: v.sessions(), changes: map[uint64]struct{}{}, jobs: map[uint64]*wire.Job{}, counts: v.counters(), refs: map[uint64]delta{},
	}
	s.tx.stored = s.tx.counts
	return v.err
}

// Applied returns the position of the last entry in the state.
func (s *State) Applied() (index, term uint64) {
	p := s.pos.Load()
	return p.index, p.term
}

// Apply applies entries in order and makes them visible at once. The result of
// an entry that the state already has is empty. Inodes in results are shared
// and must not be changed; grants and the like may be added to a result.
//
// An error means that the database failed: none of the entries took effect,
// and the State cannot be used any more.
func (s *State) Apply(entries []Entry) ([]*wire.Result, error) {
	done, err := s.use()
	if err != nil {
		return nil, err
	}
	defer done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	results := make([]*wire.Result, len(entries))
	p := *s.pos.Load()
	last := p
	t := &s.tx
	t.batch = s.db.NewIndexedBatch()
	t.view = view{r: t.batch, key: t.view.key}
	defer func() { t.batch.Close(); t.batch, t.view.r = nil, nil }()
	for i, e := range entries {
		if e.Index <= last.index {
			results[i] = &wire.Result{Index: e.Index}
			continue
		}
		last = position{e.Index, e.Term}
		results[i] = t.apply(e)
	}
	if last == p {
		return results, nil
	}
	t.flush()
	t.setRaw(paramKey(nil, pApplied), be64(be64(nil, last.index), last.term))
	if p.index == 0 {
		t.setRaw(paramKey(nil, pFormat), be64(nil, format))
	}
	if t.err == nil {
		t.err = t.batch.Commit(pebble.NoSync)
	}
	if t.err != nil {
		s.broken = fmt.Errorf("apply entries up to %d: %w", last.index, t.err)
		return nil, s.broken
	}
	s.pos.Store(&last)
	s.openJobs.committed(t.jobs)
	clear(t.jobs)
	return results, nil
}

// Flush makes everything applied so far durable.
func (s *State) Flush() error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	return s.db.Flush()
}

// Checkpoint writes a copy of the state to dir, which must not exist; Open
// opens it. Files are linked where the filesystem can.
func (s *State) Checkpoint(dir string) error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Checkpoint(dir)
}

var errClosed = &wire.Error{Code: wire.Shutdown, Op: "state", Err: errors.New("the metadata state is closed")}

// use keeps the database open until done is called.
func (s *State) use() (done func(), err error) {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return nil, errClosed
	}
	return s.life.RUnlock, nil
}

// Close flushes and closes. It may be called twice.
func (s *State) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.db.Flush()
	err = errors.Join(err, s.db.Close(), s.lock.Close())
	s.cache.Unref()
	return err
}

// read calls f with a consistent view of the state.
func (s *State) read(f func(v *view)) error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	v := &view{r: snap}
	f(v)
	return v.err
}

// pebbleLog drops Pebble's messages: what matters comes as an error of a call
// or as a background error. Fatalf must not return: Pebble calls it when going on
// would lose data.
type pebbleLog struct{ log *slog.Logger }

func (pebbleLog) Infof(string, ...any)  {}
func (pebbleLog) Errorf(string, ...any) {}
func (l pebbleLog) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.log.Error("metadata state: cannot go on", "err", text)
	panic("metadata state: " + text)
}
