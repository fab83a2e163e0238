package data

import (
	"context"
	"sync"
	"time"

	"quernfs/internal/traffic"
	"quernfs/internal/wire"
)

const (
	streamsMax  = 4         // sequential readers told apart in one file
	streamStart = 256 << 10 // bytes read in order before anything is fetched ahead
	staleAfter  = 2 * time.Second

	// aheadMin is the least that a file must use of a block for the whole block
	// to be fetched ahead, in bytes; and half of it.
	aheadMin = 128 << 10
)

// stream is one sequential reader of a file, as far as offsets tell.
type stream struct {
	next    int64 // where it goes on
	run     int64 // bytes it has read in order
	ahead   int64 // all before this has been asked for
	window  int   // blocks
	lastUse uint64
}

// readers tells sequential readers of a file from random ones. The kernel
// sends the requests of one reader in parallel, so that they come a little out
// of order. It decides, it does no I/O.
type readers struct {
	mu      sync.Mutex
	streams []stream
	clock   uint64
}

// on notes a read of n bytes at off and returns the range to fetch ahead,
// empty for none. size is the file's, window the most blocks.
func (r *readers) on(off, n, size int64, window int) (lo, hi int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	var s *stream
	for i := range r.streams {
		t := &r.streams[i]
		slack := min(t.run, 4<<20)
		if off >= t.next-slack && off <= t.next+slack && (s == nil || t.lastUse > s.lastUse) {
			s = t
		}
	}
	if s == nil {
		fresh := stream{next: off + n, run: n, ahead: off + n, lastUse: r.clock}
		if len(r.streams) < streamsMax {
			r.streams = append(r.streams, fresh)
		} else {
			oldest := 0
			for i := range r.streams {
				if r.streams[i].lastUse < r.streams[oldest].lastUse {
					oldest = i
				}
			}
			r.streams[oldest] = fresh
		}
		return 0, 0
	}
	s.lastUse = r.clock
	if more := off + n - s.next; more > 0 {
		s.run += min(more, n)
		s.next = off + n
	}
	if s.run < streamStart {
		return 0, 0
	}
	if s.window == 0 {
		s.window = 1
		s.ahead = s.next
	}
	// Ask again when half of the window has been read.
	if s.ahead-s.next > int64(s.window)*bufferSize/2 || s.ahead >= size {
		return 0, 0
	}
	s.window = min(2*s.window, window)
	lo = max(s.ahead, s.next)
	hi = min(s.next+int64(s.window)*bufferSize, size)
	if hi <= lo {
		return 0, 0
	}
	s.ahead = hi
	return lo, hi
}

// readAhead notes a read and fetches blocks ahead if it is one of a sequence.
func (f *File) readAhead(ctx context.Context, off int64, n int) {
	f.mu.RLock()
	size, inlined := f.size, f.inlined
	f.mu.RUnlock()
	if inlined || size < streamStart || n == 0 {
		return
	}
	if lo, hi := f.readers.on(off, int64(n), size, f.path.cfg.ReadAhead); lo < hi {
		f.path.spawn(func() { f.prefetch(traffic.Carry(f.path.ctx, ctx), lo, hi) })
	}
}

// prefetch starts to fetch the blocks of [lo, hi) that this file uses much of.
// The bytes count for who reads.
func (f *File) prefetch(reader context.Context, lo, hi int64) {
	ctx, cancel := context.WithTimeout(reader, uploadTimeout)
	defer cancel()
	for pos := lo; pos < hi; {
		f.mu.RLock()
		k, ok := f.known.at(pos, hi)
		type use struct {
			id    uint64
			bytes int64
		}
		var uses []use
		if ok {
			for s := range f.extents.over(k.off, k.end) {
				if i := len(uses) - 1; i >= 0 && uses[i].id == s.src {
					uses[i].bytes += s.len()
				} else {
					uses = append(uses, use{s.src, s.len()})
				}
			}
		}
		f.mu.RUnlock()
		if !ok {
			if f.fetch(ctx, k.off) != nil {
				return
			}
			continue
		}
		for _, u := range uses {
			blk := f.path.records.get(u.id)
			if blk != nil && u.bytes >= aheadMin && u.bytes >= int64(blk.GetLength())/2 {
				f.path.ahead.start(reader, blk)
			}
		}
		pos = k.end
	}
}

// ahead holds whole blocks fetched for sequential readers: each until it has
// been read once, then for as long as nobody needs its place. The kernel's
// page cache is what keeps them for good.
type ahead struct {
	path  *Path
	max   int // blocks
	slots chan struct{}

	mu    sync.Mutex
	held  map[uint64]*fetched
	order fifo[*fetched] // all of held, oldest first
}

// fetched is one block of it.
type fetched struct {
	blk  *wire.Block
	buf  []byte
	done chan struct{} // closed when buf is filled or err is set
	err  error
	at   time.Time // when it was asked for
	read int       // bytes copied out
	refs int       // readers
}

func newAhead(p *Path, n int) *ahead {
	return &ahead{path: p, max: n, slots: make(chan struct{}, max(1, p.cfg.ReadAhead)), held: map[uint64]*fetched{}}
}

// start fetches a block, if there is room for it.
func (a *ahead) start(reader context.Context, blk *wire.Block) {
	if int(blk.GetLength()) > bufferSize {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held[blk.GetId()] != nil || len(a.held) >= a.max && !a.evict() {
		return
	}
	e := &fetched{blk: blk, done: make(chan struct{}), at: time.Now(), refs: 1}
	a.held[blk.GetId()] = e
	a.order.push(e)
	a.path.stats.prefetched.Add(1)
	a.path.spawn(func() { a.fetch(reader, e) })
}

// fetch fills e and ends the reference that start took.
func (a *ahead) fetch(reader context.Context, e *fetched) {
	ctx, cancel := context.WithTimeout(reader, uploadTimeout)
	defer cancel()
	buf := a.path.buffers.get()
	select {
	case a.slots <- struct{}{}:
		e.err = a.path.blocks.ReadBlock(ctx, e.blk, buf[:e.blk.GetLength()], 0)
		<-a.slots
	case <-ctx.Done():
		e.err = ctx.Err()
	}
	if e.err == nil {
		e.buf = buf
	} else {
		a.path.buffers.put(buf)
	}
	close(e.done)
	a.mu.Lock()
	defer a.mu.Unlock()
	e.refs--
	if e.err != nil {
		e.read = int(e.blk.GetLength()) // of no use: first to go
		delete(a.held, e.blk.GetId())
	}
}

// evict makes room: by a block that has been read, else by one that nobody came
// for. a.mu is held.
func (a *ahead) evict() bool {
	for pass := range 2 {
		for range a.order.len() {
			e := a.order.pop()
			over := e.read >= int(e.blk.GetLength()) || pass == 1 && time.Since(e.at) > staleAfter
			if e.refs > 0 || !over {
				a.order.push(e)
				continue
			}
			if a.held[e.blk.GetId()] == e {
				delete(a.held, e.blk.GetId())
			}
			if e.buf != nil {
				a.path.buffers.put(e.buf)
			}
			if len(a.held) < a.max {
				return true
			}
		}
	}
	return false
}

// read serves a piece from a block fetched ahead; ok is false if there is none.
// It waits for one that is on its way.
func (a *ahead) read(ctx context.Context, pc piece) (ok bool, err error) {
	a.mu.Lock()
	e := a.held[pc.id]
	if e == nil {
		a.mu.Unlock()
		return false, nil
	}
	e.refs++
	a.mu.Unlock()
	select {
	case <-e.done:
		if e.err == nil && pc.off+len(pc.dst) <= int(e.blk.GetLength()) {
			copy(pc.dst, e.buf[pc.off:])
			ok = true
			a.path.stats.aheadHits.Add(1)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	e.refs--
	if ok {
		e.read += len(pc.dst)
	}
	a.mu.Unlock()
	return ok, err
}
