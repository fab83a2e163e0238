package data

import (
	"context"
	"sync"

	"quernfs/internal/wire"
)

// cellMax is the largest cell.
const cellMax = wire.LeafSize

// runMax is how many cells are read at once where reads go through a block in
// order.
const runMax = 16

// layout says how a block is cut into cells, the units of the cache. A cell is
// a whole number of digest leaves, so that reading it verifies nothing in vain:
// one leaf of a shard, or as many small shards as fit.
type layout struct {
	length  int // of the block
	unit    int // bytes of a shard, or of a group of small shards
	perUnit int // cells in it
}

func layoutOf(b *wire.Block) layout {
	length, shard := int(b.GetLength()), int(b.GetShardLength())
	if b.GetK() <= 1 || shard <= 0 || shard > length {
		shard = max(length, 1)
	}
	unit := shard
	if shard < cellMax {
		unit = shard * (cellMax / shard)
	}
	return layout{length: length, unit: unit, perUnit: (unit + cellMax - 1) / cellMax}
}

// cell returns the number of the cell with byte off.
func (l layout) cell(off int) int {
	return off/l.unit*l.perUnit + off%l.unit/cellMax
}

// bounds returns the bytes of cell i.
func (l layout) bounds(i int) (lo, hi int) {
	lo = i/l.perUnit*l.unit + i%l.perUnit*cellMax
	hi = min(lo+cellMax, (i/l.perUnit+1)*l.unit, l.length)
	return lo, hi
}

// cellKey names a cell.
type cellKey struct {
	block uint64
	cell  int
}

// cell is a cached piece of a block: verified and immutable.
type cell struct {
	key  cellKey
	data []byte
	slot []byte // the pooled memory of data, nil if it is the collector's
	run  int    // cells in the read that brought it in
	uses uint8  // since it was last looked at by the eviction, up to 3
	refs int    // readers that copy from it
	gone bool   // evicted; freed by the last reader
}

// load is a read of cells [lo, hi) of a block that is under way.
type load struct {
	done chan struct{}
	err  error
}

// cells is the cache for small reads: a bounded set of cells under S3-FIFO
// (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache
// eviction", SOSP 2023). What comes in passes through a short queue; what is
// used again there, or comes back soon after it was evicted, goes into the main
// one. Large reads look in it but do not fill it: the kernel's page cache keeps
// what they bring.
type cells struct {
	limit   int64
	buffers *buffers

	mu       sync.Mutex
	held     map[cellKey]*cell
	loads    map[cellKey]*load
	small    fifo[*cell]
	main     fifo[*cell]
	smallUse int64
	used     int64
	ghosts   map[cellKey]int // generation in which it was evicted
	ghostAge fifo[cellKey]
	slots    [][]byte // free
}

func newCells(limit int64, b *buffers) *cells {
	return &cells{
		limit: limit, buffers: b,
		held: map[cellKey]*cell{}, loads: map[cellKey]*load{}, ghosts: map[cellKey]int{},
	}
}

// slotMin is the size from which a cell's memory is a pooled slot.
const slotMin = cellMax / 4

// cost is the memory a cell of n bytes takes.
func cost(n int) int64 {
	if n >= slotMin {
		return cellMax
	}
	return int64(n) + 128
}

// get returns a cell, to be released, or nil.
func (c *cells) get(k cellKey) *cell {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.getLocked(k)
}

func (c *cells) getLocked(k cellKey) *cell {
	e := c.held[k]
	if e != nil {
		e.uses = min(e.uses+1, 3)
		e.refs++
	}
	return e
}

func (c *cells) release(e *cell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.refs--
	if e.gone && e.refs == 0 {
		c.free(e)
	}
}

func (c *cells) free(e *cell) {
	if e.slot != nil {
		c.slots = append(c.slots, e.slot)
	}
	e.data, e.slot = nil, nil
}

// insert copies data in as a cell. c.mu is held.
func (c *cells) insert(k cellKey, data []byte, run int) {
	if c.held[k] != nil || len(data) == 0 {
		return
	}
	need := cost(len(data))
	if need > c.limit {
		return
	}
	for c.used+need > c.limit {
		if !c.evict() {
			return
		}
	}
	e := &cell{key: k, run: run}
	if len(data) >= slotMin {
		if len(c.slots) == 0 {
			buf := c.buffers.get()
			for i := 0; i < len(buf); i += cellMax {
				c.slots = append(c.slots, buf[i:i+cellMax:i+cellMax])
			}
		}
		e.slot = c.slots[len(c.slots)-1]
		c.slots = c.slots[:len(c.slots)-1]
		e.data = e.slot[:len(data)]
	} else {
		e.data = make([]byte, len(data))
	}
	copy(e.data, data)
	c.held[k] = e
	c.used += need
	if _, ok := c.ghosts[k]; ok {
		delete(c.ghosts, k)
		c.main.push(e)
	} else {
		c.small.push(e)
		c.smallUse += need
	}
}

// evict removes one cell; false if there is none.
func (c *cells) evict() bool {
	for c.small.len()+c.main.len() > 0 {
		if c.small.len() > 0 && (c.smallUse >= c.limit/10 || c.main.len() == 0) {
			e := c.small.pop()
			c.smallUse -= cost(len(e.data))
			if e.uses > 0 {
				e.uses = 0
				c.main.push(e)
				continue
			}
			c.ghost(e.key)
			c.remove(e)
			return true
		}
		e := c.main.pop()
		if e.uses > 0 {
			e.uses--
			c.main.push(e)
			continue
		}
		c.remove(e)
		return true
	}
	return false
}

func (c *cells) remove(e *cell) {
	delete(c.held, e.key)
	c.used -= cost(len(e.data))
	e.gone = true
	if e.refs == 0 {
		c.free(e)
	}
}

// ghost remembers the key of an evicted cell, as many as there are cells.
func (c *cells) ghost(k cellKey) {
	c.ghosts[k]++
	c.ghostAge.push(k)
	for c.ghostAge.len() > max(64, len(c.held)) {
		old := c.ghostAge.pop()
		if n := c.ghosts[old]; n > 1 {
			c.ghosts[old] = n - 1
		} else {
			delete(c.ghosts, old)
		}
	}
}

// fill caches a whole block, whose content is data.
func (c *cells) fill(b *wire.Block, data []byte) {
	l := layoutOf(b)
	for i := 0; ; i++ {
		lo, hi := l.bounds(i)
		if lo >= l.length || hi > len(data) {
			return
		}
		c.mu.Lock()
		c.insert(cellKey{b.GetId(), i}, data[lo:hi], 1)
		c.mu.Unlock()
	}
}

// readCells reads a piece. What is cached is copied. Of the rest, a run of a
// whole cell or more is read straight into place; less brings the cell in, and
// more cells after it the longer reads have gone through the block in order.
func (p *Path) readCells(ctx context.Context, pc piece) error {
	l := layoutOf(pc.blk)
	off, end := pc.off, pc.off+len(pc.dst)
	direct := -1 // start of a run to be read straight
	flush := func(to int) error {
		if direct < 0 {
			return nil
		}
		from := direct
		direct = -1
		p.stats.direct.Add(1)
		return p.blocks.ReadBlock(ctx, pc.blk, pc.dst[from-pc.off:to-pc.off], from)
	}
	large := len(pc.dst) >= cellMax
	for off < end {
		i := l.cell(off)
		lo, hi := l.bounds(i)
		if hi <= off {
			return wire.Errorf(wire.Internal, "read", "", "block %d ends at %d, before %d", pc.id, l.length, end)
		}
		to := min(hi, end)
		k := cellKey{pc.id, i}
		if e := p.cells.get(k); e != nil {
			copy(pc.dst[off-pc.off:to-pc.off], e.data[off-lo:])
			p.cells.release(e)
			p.stats.hits.Add(1)
			if err := flush(off); err != nil {
				return err
			}
		} else if large {
			if direct < 0 {
				direct = off
			}
		} else if err := p.loadCell(ctx, pc.blk, l, i, pc.dst[off-pc.off:to-pc.off], off-lo); err != nil {
			return err
		}
		off = to
	}
	return flush(end)
}

// loadCell brings cell i in, with a run of those after it, and copies its bytes
// from off to dst. One caller reads, others that want the same wait.
func (p *Path) loadCell(ctx context.Context, blk *wire.Block, l layout, i int, dst []byte, off int) error {
	c := p.cells
	k := cellKey{blk.GetId(), i}
	c.mu.Lock()
	for {
		if e := c.getLocked(k); e != nil {
			c.mu.Unlock()
			copy(dst, e.data[off:])
			c.release(e)
			p.stats.hits.Add(1)
			return nil
		}
		other := c.loads[k]
		if other == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if other.err != nil && ctx.Err() == nil && wire.CodeOf(other.err) != wire.Interrupted {
			return other.err
		}
		c.mu.Lock()
	}
	run := 1
	if before := c.held[cellKey{k.block, i - 1}]; before != nil && i > 0 {
		run = min(2*before.run, runMax)
	}
	ld := &load{done: make(chan struct{})}
	n := 0
	for n < run {
		lo, _ := l.bounds(i + n)
		next := cellKey{k.block, i + n}
		if lo >= l.length || n > 0 && (c.held[next] != nil || c.loads[next] != nil) {
			break
		}
		c.loads[next] = ld
		n++
	}
	c.mu.Unlock()

	p.stats.misses.Add(1)
	start, _ := l.bounds(i)
	_, end := l.bounds(i + n - 1)
	buf := scratch(end - start)
	defer giveScratch(buf)
	ld.err = p.blocks.ReadBlock(ctx, blk, buf[:end-start], start)
	if ld.err == nil {
		copy(dst, buf[off:])
	}
	c.mu.Lock()
	for j := i; j < i+n; j++ {
		if ld.err == nil {
			lo, hi := l.bounds(j)
			c.insert(cellKey{k.block, j}, buf[lo-start:hi-start], n)
		}
		delete(c.loads, cellKey{k.block, j})
	}
	c.mu.Unlock()
	close(ld.done)
	return ld.err
}

var (
	scratchOne = sync.Pool{New: func() any { b := make([]byte, cellMax); return &b }}
	scratchRun = sync.Pool{New: func() any { b := make([]byte, runMax*cellMax); return &b }}
)

// scratch returns a buffer of at least n bytes, n up to a run of cells.
func scratch(n int) []byte {
	if n <= cellMax {
		return *scratchOne.Get().(*[]byte)
	}
	return *scratchRun.Get().(*[]byte)
}

func giveScratch(b []byte) {
	if len(b) == cellMax {
		scratchOne.Put(&b)
	} else {
		scratchRun.Put(&b)
	}
}

// fifo is a queue in a ring.
type fifo[T any] struct {
	ring []T
	head int
	n    int
}

func (q *fifo[T]) len() int { return q.n }

func (q *fifo[T]) push(x T) {
	if q.n == len(q.ring) {
		ring := make([]T, max(16, 2*q.n))
		for i := range q.n {
			ring[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = x
	q.n++
}

func (q *fifo[T]) pop() T {
	var zero T
	x := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return x
}
