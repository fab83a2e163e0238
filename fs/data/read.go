package data

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"quernfs/internal/wire"
)

const (
	// extentsKept bounds the extents cached for one file; beyond it they are
	// forgotten and fetched again where they are needed.
	extentsKept = 32 << 10

	// extentsPage is how many extents are fetched at once.
	extentsPage = 512

	// readParallel bounds the blocks read at once for one ReadAt.
	readParallel = 8
)

// piece is a range of a block that belongs at dst.
type piece struct {
	dst []byte
	id  uint64
	off int
	blk *wire.Block
}

// ReadAt fills b with what is at off: what is dirty over what is committed
// over zeros. At the end of the file it returns fewer bytes and io.EOF. It does
// not wait for writers' uploads. Bytes from blocks are verified; a block that
// cannot be read is looked up once more (its shards may have moved) before
// the error is returned.
func (f *File) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	return f.readAt(ctx, b, off, false)
}

// ReadExactly is ReadAt without read-ahead and without bringing anything into
// the cache: no other byte is fetched than those asked for, and what verifies
// them.
func (f *File) ReadExactly(ctx context.Context, b []byte, off int64) (int, error) {
	return f.readAt(ctx, b, off, true)
}

func (f *File) readAt(ctx context.Context, b []byte, off int64, exactly bool) (int, error) {
	if off < 0 {
		return 0, wire.Errorf(wire.Invalid, "read", f.object(), "negative offset")
	}
	if n, pieces, missing := f.look(b, off); len(pieces) == 0 && missing.off == missing.end {
		return f.have(b, n) // all of it was in memory
	}
	ctx, cancel := context.WithTimeout(ctx, f.path.cfg.FlushTimeout)
	defer cancel()
	for retried := false; ; retried = true {
		n, pieces, err := f.plan(ctx, b, off)
		if err == nil {
			if !exactly {
				f.readAhead(ctx, off, n)
			}
			err = f.path.readPieces(ctx, pieces, exactly)
		}
		if err == nil {
			return f.have(b, n)
		}
		if retried || ctx.Err() != nil || !moved(err) {
			var e *wire.Error
			if errors.As(err, &e) {
				return 0, err
			}
			return 0, &wire.Error{Code: wire.CodeOf(err), Op: "read", Object: f.object(), Err: err}
		}
		f.forgetExtents(off, off+int64(n))
	}
}

// have is the end of a read of n bytes into b.
func (f *File) have(b []byte, n int) (int, error) {
	f.path.stats.read.Add(int64(n))
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// moved says that an error may come from an outdated block record.
func moved(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Corrupt, wire.NotFound, wire.Unavailable, wire.Stale:
		return true
	}
	return false
}

// plan fills in what is in memory, and zeros, and returns what is to be read
// from blocks. All of it is the file at one moment.
func (f *File) plan(ctx context.Context, b []byte, off int64) (n int, pieces []piece, err error) {
	for range 1000 {
		n, pieces, missing := f.look(b, off)
		if missing.off == missing.end {
			return n, pieces, nil
		}
		if err := f.fetch(ctx, missing.off); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, wire.Errorf(wire.Again, "read", f.object(), "its extents keep changing")
}

// look is plan, except that it stops at a range whose extents are not known.
func (f *File) look(b []byte, off int64) (n int, pieces []piece, missing span[struct{}]) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if off >= f.size {
		return 0, nil, missing
	}
	b = b[:min(int64(len(b)), f.size-off)]
	n = len(b)
	if f.inlined {
		m := 0
		if off < int64(len(f.inline)) {
			m = copy(b, f.inline[off:])
		}
		clear(b[m:])
		return n, nil, missing
	}
	pieces, missing = f.lookUnder(len(f.parts), b, off, nil)
	return n, pieces, missing
}

// lookUnder reads [off, off+len(b)) from the first n parts, newest first, and
// what they lack from the extents. f.mu is held for reading.
func (f *File) lookUnder(n int, b []byte, off int64, pieces []piece) ([]piece, span[struct{}]) {
	var missing span[struct{}]
	if n == 0 {
		return f.lookExtents(b, off, pieces)
	}
	pt := f.parts[n-1]
	pos, end := off, off+int64(len(b))
	for s := range pt.spans.over(off, end) {
		if pos < s.off {
			if pieces, missing = f.lookUnder(n-1, b[pos-off:s.off-off], pos, pieces); missing.off < missing.end {
				return nil, missing
			}
		}
		copy(b[s.off-off:s.end-off], pt.d.buf[s.at:])
		pos = s.end
	}
	if pos < end {
		return f.lookUnder(n-1, b[pos-off:], pos, pieces)
	}
	return pieces, missing
}

// lookExtents reads from the extents and the holes between them.
func (f *File) lookExtents(b []byte, off int64, pieces []piece) ([]piece, span[struct{}]) {
	end := off + int64(len(b))
	for pos := off; pos < end; {
		k, ok := f.known.at(pos, end)
		if !ok {
			return nil, span[struct{}]{off: pos, end: end}
		}
		for pos < k.end {
			s, ok := f.extents.at(pos, k.end)
			to := b[s.off-off : s.end-off]
			pos = s.end
			if !ok {
				clear(to)
				continue
			}
			blk := f.path.records.get(s.src)
			if blk == nil {
				return nil, span[struct{}]{off: s.off, end: end}
			}
			pieces = append(pieces, piece{dst: to, id: s.src, off: int(s.at), blk: blk})
		}
	}
	return pieces, span[struct{}]{}
}

// fetch asks meta for a page of extents from off on, and keeps them where
// nothing newer is known; or it waits for a fetch that is under way. The caller
// looks again in either case.
func (f *File) fetch(ctx context.Context, off int64) error {
	f.mu.Lock()
	if other := f.fetching; other != nil {
		f.mu.Unlock()
		select {
		case <-other:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	f.fetching = done
	epoch := f.epoch
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.fetching = nil
		f.mu.Unlock()
		close(done)
	}()
	return f.fetchPage(ctx, off, epoch)
}

func (f *File) fetchPage(ctx context.Context, off int64, epoch uint64) error {
	a, err := f.path.meta.Extents(ctx, &wire.GetExtents{Ino: f.ino, Off: uint64(off), Limit: extentsPage})
	if err != nil {
		return err
	}
	f.path.stats.fetches.Add(1)
	upto := int64(min(a.GetUpto(), wire.MaxFile))
	if uint64(upto) >= a.GetInode().GetAttr().GetSize() {
		upto = maxOff
	}
	if upto <= off {
		return wire.Errorf(wire.Internal, "extents", f.object(), "the answer ends at %d, before %d", upto, off)
	}
	for _, blk := range a.GetBlocks() {
		f.path.records.add(blk)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch != epoch {
		return nil // out of date: look again
	}
	if rec := a.GetInode(); rec.GetAttr().GetVersion() > f.storedAt {
		// A commit that is under way has been carried out, and nobody here knows yet.
		// What the file occupies goes together with the extents.
		f.stored, f.storedAt, f.storedInline = int64(rec.Attr.GetAllocated()), rec.Attr.Version, rec.GetHasInline()
		f.extents.reset()
		f.known.reset()
	}
	f.boundExtents()
	// Where a commit has told us meanwhile, it is at least as new.
	for pos := off; pos < upto; {
		k, ok := f.known.at(pos, upto)
		pos = k.end
		if ok {
			continue
		}
		for _, e := range a.GetExtents() {
			s := span[uint64]{off: int64(e.GetOff()), end: int64(e.GetOff()) + int64(e.GetLen()), at: int64(e.GetBlockOff()), src: e.GetBlock()}
			if s.off < k.end && s.end > k.off {
				f.extents.set(s.clip(k.off, k.end))
			}
		}
		f.known.set(span[struct{}]{off: k.off, end: k.end, at: k.off})
	}
	f.counted = false
	return nil
}

// boundExtents forgets the extents when there are too many. f.mu is held.
func (f *File) boundExtents() {
	if f.extents.count()+f.known.count() > extentsKept {
		f.extents.reset()
		f.known.reset()
		f.counted = false
		f.epoch++
	}
}

// forgetExtents has the extents of a range fetched anew, with their blocks.
func (f *File) forgetExtents(off, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.extents.clear(off, end)
	f.known.clear(off, end)
	f.counted = false
	f.epoch++
}

// readPieces reads the pieces, several at once.
func (p *Path) readPieces(ctx context.Context, pieces []piece, exactly bool) error {
	switch len(pieces) {
	case 0:
		return nil
	case 1:
		return p.readPiece(ctx, pieces[0], exactly)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)
	for _, pc := range pieces {
		g.Go(func() error { return p.readPiece(ctx, pc, exactly) })
	}
	return g.Wait()
}

// readPiece reads from a block fetched ahead, from cached cells, or from the
// chunk servers.
func (p *Path) readPiece(ctx context.Context, pc piece, exactly bool) error {
	if exactly {
		return p.blocks.ReadBlock(ctx, pc.blk, pc.dst, pc.off)
	}
	if ok, err := p.ahead.read(ctx, pc); ok || err != nil {
		return err
	}
	return p.readCells(ctx, pc)
}
