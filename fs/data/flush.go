package data

import (
	"context"
	"errors"

	"quernfs/internal/wire"
)

// packCheap is the size up to which a shared draft goes out whole when one of
// its files is flushed. Of a larger one the file's part is taken out.
const packCheap = 256 << 10

// Flush returns when all earlier writes and deferred attributes are durable
// and committed: one block and one commit for a small file, both shared with
// whatever else is being flushed. It waits as long as ctx and
// Config.FlushTimeout allow, and then returns what hindered it; the data stays
// dirty and is tried again. While there is no space left (NoSpace) it does not
// wait. Data that was dropped since the last Flush, other than by Discard, is
// reported once.
func (f *File) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.path.cfg.FlushTimeout)
	defer cancel()
	if err := f.takeLost(); err != nil {
		return err
	}
	waits, data := f.press()
	for _, done := range waits {
		if err := f.wait(ctx, done, data); err != nil {
			return err
		}
	}
	return f.takeLost()
}

// Refused returns NoSpace if f has data for which no server has room, as far as
// is known, else nil. It does not wait.
func (f *File) Refused() error {
	f.mu.RLock()
	data := len(f.parts) > 0 || f.pending != nil && f.pending.inline
	f.mu.RUnlock()
	f.path.mu.Lock()
	defer f.path.mu.Unlock()
	if data && f.path.isFull {
		return wire.Errorf(wire.NoSpace, "store", f.object(), "no server has room")
	}
	return nil
}

func (f *File) takeLost() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.lost
	f.lost = nil
	return err
}

// press has everything dirty uploaded and committed before anything that
// nobody waits for. It returns what will be closed when that is done, and
// whether there is data to upload.
func (f *File) press() (waits []<-chan struct{}, data bool) {
	f.mu.Lock()
	f.streaming = false // what follows may be small, and share drafts
	for i, pt := range f.parts {
		waits = append(waits, pt.done)
		if pt.d.block.Load() != nil {
			continue
		}
		data = true
		if i < len(f.parts)-1 {
			f.path.enqueue(pt.d, pressed)
		} else {
			f.pressLast(pt)
		}
	}
	changed := f.pending != nil
	for _, c := range []*change{f.pending, f.sent} {
		if c != nil {
			waits = append(waits, c.done[0])
		}
	}
	f.mu.Unlock()
	if changed {
		f.changeDue()
	}
	return waits, data
}

// pressLast has the last part uploaded: with the draft it is in, or, out of a
// large shared one, with what else is being flushed. f.mu is held.
func (f *File) pressLast(pt *part) {
	p, d := f.path, pt.d
	d.mu.Lock()
	if !d.sealed && !d.private && !d.urgent && d.tail > packCheap {
		to := p.packDraft(d.policy, int(pt.spans.bytes), true)
		pt.move(to)
		d.mu.Unlock()
		to.mu.Unlock()
		p.enqueue(to, pressed)
		return
	}
	d.urgent = true
	d.mu.Unlock()
	p.enqueue(d, pressed)
}

// wait waits for done.
func (f *File) wait(ctx context.Context, done <-chan struct{}, data bool) error {
	p := f.path
	select {
	case <-done:
		return nil
	default:
	}
	var full <-chan struct{}
	if data {
		p.mu.Lock()
		full = p.full
		p.mu.Unlock()
	}
	var err error
	select {
	case <-done:
		return nil
	case <-p.ctx.Done():
		return wire.Errorf(wire.Shutdown, "flush", f.object(), "the mount is closing")
	case <-full:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	last := f.lastErr
	if last == nil {
		last = p.lastErr
	}
	if p.isFull && data && (last == nil || !noSpace(last)) {
		last = wire.Errorf(wire.NoSpace, "store", f.object(), "no server has room")
	}
	p.mu.Unlock()
	if last == nil || errors.Is(err, context.Canceled) {
		return &wire.Error{Code: wire.CodeOf(err), Op: "flush", Object: f.object(), Err: err}
	}
	return &wire.Error{Code: codeOr(last, wire.Unavailable), Op: "flush", Object: f.object(), Err: last}
}

// press has all drafts uploaded, since somebody waits for everything.
func (p *Path) press() { p.pushAll(pressed) }

// relieve has all drafts uploaded and all changes committed, since memory is
// short.
func (p *Path) relieve() {
	p.pushAll(normal)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.changed {
		f.listed = false
		p.readyLocked(f)
	}
	p.changed = nil
}

func (p *Path) pushAll(r rank) {
	p.mu.Lock()
	all := make([]*draft, 0, len(p.open))
	for d := range p.open {
		all = append(all, d)
	}
	p.mu.Unlock()
	for _, d := range all {
		if r == pressed {
			d.mu.Lock()
			d.urgent = true
			d.mu.Unlock()
		}
		p.enqueue(d, r)
	}
}

// grownOld is d's timer: FlushAfter has passed since its first byte. The small
// rest of a large file goes together with the small files.
func (p *Path) grownOld(d *draft) {
	if f := d.smallRest(); f != nil {
		f.mu.Lock()
		d.mu.Lock()
		if pt := d.parts[f]; pt != nil && !d.sealed && !d.urgent {
			to := p.packDraft(d.policy, int(pt.spans.bytes), false)
			if to.cap-to.tail >= int(pt.spans.bytes) {
				pt.move(to)
				d.mu.Unlock()
				to.mu.Unlock()
				f.mu.Unlock()
				p.enqueue(to, normal)
				return
			}
			to.mu.Unlock()
		}
		d.mu.Unlock()
		f.mu.Unlock()
	}
	p.enqueue(d, normal)
}

// smallRest returns the file of an open private draft of which less than an
// eighth is used, else nil.
func (d *draft) smallRest() *File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.private && !d.sealed && !d.urgent && d.tail <= d.cap/8 {
		for f := range d.parts {
			return f
		}
	}
	return nil
}
