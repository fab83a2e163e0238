package data

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// privateAt is how many bytes one file may have in a draft that it shares with
// other files. Beyond, it gets a draft of its own, so that its blocks hold long
// runs of it alone.
const privateAt = 256 << 10

// draft is a block being written: a buffer that files append to. Open, it
// takes data; sealed, it never changes; stored, its block is on the chunk
// servers; it is freed when each file's part has been committed or dropped.
type draft struct {
	path    *Path
	policy  block.Policy
	cap     int  // the policy's block size
	private bool // of one file
	buf     []byte
	timer   *time.Timer // seals it FlushAfter its first byte

	mu     sync.Mutex
	tail   int // bytes of buf in use
	sealed bool
	urgent bool            // a Flush waits for it
	busy   bool            // buf is being uploaded
	freed  bool            // buf has been given back
	parts  map[*File]*part // what is not yet committed or dropped

	block     atomic.Pointer[wire.Block] // once stored
	committed atomic.Bool                // the block is part of the filesystem

	// Guarded by Path.mu.
	rank  rank // the queue it waits in
	tries int  // failed uploads
}

// rank orders the upload queues.
type rank uint8

const (
	idle    rank = iota
	normal       // full, old, or memory is short
	pressed      // somebody waits
	taken        // being uploaded, or done
)

// part is one file's share of a draft. Its fields are guarded by the file's mu;
// d changes when the part moves to another draft.
type part struct {
	f     *File
	d     *draft
	spans spanMap[struct{}] // file offset → place in d.buf
	done  chan struct{}     // closed when committed or dropped
	over  bool              // done is closed
}

// newDraft makes an open draft that nobody else knows yet.
func (p *Path) newDraft(pol block.Policy, private bool) *draft {
	d := &draft{
		path: p, policy: pol, cap: min(pol.BlockSize, bufferSize), private: private,
		buf: p.buffers.get(), parts: map[*File]*part{},
	}
	d.timer = time.AfterFunc(p.cfg.FlushAfter, func() { p.grownOld(d) })
	return d
}

// openPart returns the part that f's next n bytes go to, its draft locked and
// with room for at least one. f.mu is held.
func (f *File) openPart(n int) *part {
	p := f.path
	limit := min(privateAt, f.policy.BlockSize/2)
	if k := len(f.parts); k > 0 {
		pt := f.parts[k-1]
		d := pt.d
		d.mu.Lock()
		switch {
		case d.sealed:
			d.mu.Unlock()
		case d.policy != f.policy:
			p.seal(d)
		case d.private || d.urgent || pt.spans.bytes+int64(n) <= int64(limit):
			return pt
		default:
			to := p.privateDraft(f.policy)
			to.mu.Lock()
			pt.move(to)
			d.mu.Unlock()
			return pt
		}
	}
	var d *draft
	if f.streaming || n >= limit {
		d = p.privateDraft(f.policy)
		d.mu.Lock()
	} else {
		d = p.packDraft(f.policy, n, false)
	}
	pt := &part{f: f, d: d, done: make(chan struct{})}
	d.parts[f] = pt
	f.parts = append(f.parts, pt)
	return pt
}

// privateDraft makes a draft for one file.
func (p *Path) privateDraft(pol block.Policy) *draft {
	d := p.newDraft(pol, true)
	p.mu.Lock()
	p.open[d] = struct{}{}
	p.mu.Unlock()
	return d
}

// pack holds the drafts of one policy that files share.
type pack struct {
	lazy   *draft // small files collect here
	urgent *draft // what a Flush took out of a large lazy draft
}

// packDraft returns the shared draft of a policy, locked and with room for n
// bytes, or for some if n is large.
func (p *Path) packDraft(pol block.Policy, n int, urgent bool) *draft {
	for {
		p.mu.Lock()
		pk := p.packs[pol]
		if pk == nil {
			pk = &pack{}
			p.packs[pol] = pk
		}
		slot := &pk.lazy
		if urgent {
			slot = &pk.urgent
		}
		d := *slot
		if d == nil {
			d = p.newDraft(pol, false)
			d.mu.Lock() // nobody else has it
			d.urgent = urgent
			*slot = d
			p.open[d] = struct{}{}
			p.mu.Unlock()
			return d
		}
		p.mu.Unlock()
		d.mu.Lock()
		switch {
		case d.sealed:
			d.mu.Unlock()
		case d.tail == 0 || d.cap-d.tail >= min(n, wire.LeafSize) && !urgent || d.cap-d.tail >= n:
			return d
		default:
			p.seal(d)
		}
		p.mu.Lock()
		if *slot == d {
			*slot = nil
		}
		p.mu.Unlock()
	}
}

// seal ends an open draft, unlocks it and queues it for upload.
func (p *Path) seal(d *draft) {
	d.sealed = true
	r := normal
	if d.urgent {
		r = pressed
	}
	d.mu.Unlock()
	p.enqueue(d, r)
}

// put stores b, which lies at off in the file, in the part: over what the part
// has of the range, and behind the draft's tail. It returns how many bytes it
// took before the draft was full and by how many the tail grew. The file's and
// the draft's mu are held.
func (pt *part) put(b []byte, off int64) (n, grown int) {
	d := pt.d
	for n < len(b) {
		s, ok := pt.spans.at(off+int64(n), off+int64(len(b)))
		if ok {
			n += copy(d.buf[s.at:s.at+s.len()], b[n:])
			continue
		}
		room := min(int(s.len()), d.cap-d.tail)
		if room == 0 {
			break
		}
		copy(d.buf[d.tail:], b[n:n+room])
		pt.spans.set(span[struct{}]{off: s.off, end: s.off + int64(room), at: int64(d.tail)})
		d.tail += room
		grown += room
		n += room
	}
	return n, grown
}

// move takes the part to the draft to, in the order of its offsets. The mu of
// the file and of both drafts are held; to has room.
func (pt *part) move(to *draft) {
	from := pt.d
	var spans spanMap[struct{}]
	start := to.tail
	for s := range pt.spans.all() {
		copy(to.buf[to.tail:], from.buf[s.at:s.at+s.len()])
		spans.set(span[struct{}]{off: s.off, end: s.end, at: int64(to.tail)})
		to.tail += int(s.len())
	}
	pt.spans, pt.d = spans, to
	to.parts[pt.f] = pt
	to.path.charge(int64(to.tail - start))
	from.leave(pt.f)
}

// leave takes a file's part out of the draft, and frees the draft when it was
// the last. d.mu is held.
func (d *draft) leave(f *File) {
	delete(d.parts, f)
	d.freeIfOver()
}

// freeIfOver gives the buffer back when nobody needs it. d.mu is held.
func (d *draft) freeIfOver() {
	if len(d.parts) > 0 || d.busy || d.freed {
		return
	}
	d.sealed, d.freed = true, true
	d.timer.Stop()
	d.path.buffers.put(d.buf)
	d.buf = nil
	d.path.freed(d)
}

// finish ends a part: it was committed or dropped. f.mu is held; the caller
// takes it out of f.parts.
func (pt *part) finish() {
	d := pt.d
	d.mu.Lock()
	if d.parts[pt.f] == pt {
		d.leave(pt.f)
	}
	d.mu.Unlock()
}

// close tells those who wait for the part.
func (pt *part) close() {
	if !pt.over {
		pt.over = true
		close(pt.done)
	}
}

// gather copies the parts of a sealed draft into a fresh one where that makes
// fewer extents or leaves out dead bytes, and returns the draft to upload. It
// runs in the draft's upload; the caller holds no lock.
func (p *Path) gather(d *draft) *draft {
	d.mu.Lock()
	parts := make([]*part, 0, len(d.parts))
	for _, pt := range d.parts {
		parts = append(parts, pt)
	}
	tail := d.tail
	d.mu.Unlock()

	spans, merges, live := 0, 0, int64(0)
	first := make(map[*part]int64, len(parts))
	for _, pt := range parts {
		pt.f.mu.RLock()
		last := span[struct{}]{end: -1}
		first[pt] = -1
		for s := range pt.spans.all() {
			if first[pt] < 0 || s.at < first[pt] {
				first[pt] = s.at
			}
			if s.off == last.end {
				merges++
			}
			last = s
		}
		spans += pt.spans.count()
		live += pt.spans.bytes
		pt.f.mu.RUnlock()
	}
	dead := int64(tail) - live
	if dead <= int64(tail)/16 && (merges < 8 || merges < spans/8) {
		return d
	}
	slices.SortFunc(parts, func(a, b *part) int { return cmp.Compare(first[a], first[b]) })
	to := p.newDraft(d.policy, d.private)
	to.timer.Stop()
	to.sealed, to.busy, to.urgent, to.rank, to.tries = true, true, d.urgent, taken, d.tries
	for _, pt := range parts {
		pt.f.mu.Lock()
		d.mu.Lock()
		to.mu.Lock()
		if d.parts[pt.f] == pt {
			pt.move(to)
		}
		to.mu.Unlock()
		d.mu.Unlock()
		pt.f.mu.Unlock()
	}
	d.mu.Lock()
	d.busy = false
	d.freeIfOver()
	d.mu.Unlock()
	return to
}
