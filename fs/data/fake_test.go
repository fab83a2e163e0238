package data

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// cluster is a metadata service and chunk servers in memory: the rules of
// meta/state's Commit, no shards. Hooks inject delays and failures; they run
// without the lock.
type cluster struct {
	t testing.TB

	onWrite    func(ctx context.Context, data []byte) error
	onRead     func(ctx context.Context, blk uint64, n int) error
	onAllocate func() error
	// onCommit may let the commit fail before it is carried out, or after: then
	// the answer is lost.
	onCommit  func(ctx context.Context, c *wire.Commit) (before, after error)
	onExtents func() error
	committed func(ino uint64) // with the lock held, after each change of a file

	mu        sync.Mutex
	files     map[uint64]*fakeFile
	stored    map[uint64][]byte
	blocks    map[uint64]*wire.Block // committed
	nextBlock uint64
	commits   []*wire.Commit
	reads     int
	readBytes int
	pageLimit uint32
	holey     bool // inline content may be dropped without all its bytes: some were punched
}

type fakeFile struct {
	inode   *wire.Inode
	extents spanMap[uint64]
}

func newCluster(t testing.TB) *cluster {
	return &cluster{t: t, files: map[uint64]*fakeFile{}, stored: map[uint64][]byte{}, blocks: map[uint64]*wire.Block{}, nextBlock: 1}
}

// create makes an empty file and returns a copy of its inode.
func (c *cluster) create(ino uint64, pol block.Policy) *wire.Inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &fakeFile{inode: &wire.Inode{Attr: &wire.Attr{Ino: ino, Version: 1}, Policy: pol.ToWire()}}
	c.files[ino] = f
	return f.copy()
}

func (f *fakeFile) copy() *wire.Inode {
	allocated := uint64(f.extents.bytes)
	if f.inode.HasInline {
		allocated = uint64(len(f.inode.Inline))
	}
	in := &wire.Inode{Attr: &wire.Attr{
		Ino: f.inode.Attr.Ino, Size: f.inode.Attr.Size, Version: f.inode.Attr.Version,
		MtimeNs: f.inode.Attr.MtimeNs, Mode: f.inode.Attr.Mode, Allocated: allocated,
	}, Policy: f.inode.Policy, HasInline: f.inode.HasInline, Inline: bytes.Clone(f.inode.Inline)}
	return in
}

func (c *cluster) inode(ino uint64) *wire.Inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[ino].copy()
}

func (c *cluster) remove(ino uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, ino)
}

// setSize is SetAttr{size}.
func (c *cluster) setSize(ino uint64, size int64) *wire.Inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[ino]
	f.extents.clear(size, maxOff)
	if int64(len(f.inode.Inline)) > size {
		f.inode.Inline = f.inode.Inline[:size:size]
	}
	f.inode.Attr.Size = uint64(size)
	return c.changed(f)
}

// punch is Fallocate: a hole, the size growing to at least size.
func (c *cluster) punch(ino uint64, off, n int64, size int64) *wire.Inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[ino]
	f.extents.clear(off, off+n)
	if int64(len(f.inode.Inline)) > off {
		f.inode.Inline = bytes.Clone(f.inode.Inline)
		clear(f.inode.Inline[off:min(off+n, int64(len(f.inode.Inline)))])
	}
	f.inode.Attr.Size = max(f.inode.Attr.Size, uint64(size))
	return c.changed(f)
}

func (c *cluster) changed(f *fakeFile) *wire.Inode {
	f.inode.Attr.Version++
	if c.committed != nil {
		c.committed(f.inode.Attr.Ino)
	}
	return f.copy()
}

// content returns what is committed of a file.
func (c *cluster) content(ino uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contentLocked(ino)
}

func (c *cluster) contentLocked(ino uint64) []byte {
	f := c.files[ino]
	out := make([]byte, f.inode.Attr.Size)
	copy(out, f.inode.Inline)
	for s := range f.extents.all() {
		if s.off < int64(len(out)) {
			s = s.clip(s.off, int64(len(out)))
			copy(out[s.off:s.end], c.stored[s.src][s.at:])
		}
	}
	return out
}

func (c *cluster) Allocate(ctx context.Context, q *wire.Allocate) (*wire.AllocateAnswer, error) {
	if c.onAllocate != nil {
		if err := c.onAllocate(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &wire.AllocateAnswer{}
	for range q.Count {
		a.Tickets = append(a.Tickets, &wire.Ticket{Block: c.nextBlock, Servers: make([]uint32, q.Policy.K+q.Policy.M)})
		c.nextBlock++
	}
	return a, nil
}

func (c *cluster) WriteBlock(ctx context.Context, p block.Policy, t *wire.Ticket, spares []uint32, data []byte) (*wire.Block, error) {
	if c.onWrite != nil {
		if err := c.onWrite(ctx, data); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 || len(data) > p.BlockSize {
		c.t.Errorf("block of %d bytes", len(data))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stored[t.Block] != nil {
		c.t.Errorf("block %d is written twice", t.Block)
	}
	c.stored[t.Block] = bytes.Clone(data)
	b := &wire.Block{Id: t.Block, K: uint32(p.K), M: uint32(p.M), Length: uint32(len(data)), ShardLength: uint32(block.ShardLength(len(data), p.K))}
	for i := range p.K + p.M {
		b.Shards = append(b.Shards, &wire.Shard{Server: uint32(i + 1), Root: make([]byte, 32), Proof: make([]byte, 32)})
	}
	return b, nil
}

func (c *cluster) ReadBlock(ctx context.Context, b *wire.Block, p []byte, off int) error {
	if c.onRead != nil {
		if err := c.onRead(ctx, b.Id, len(p)); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[b.Id] == nil {
		c.t.Errorf("read of block %d, which is not committed", b.Id)
	}
	c.reads++
	c.readBytes += len(p)
	if n := copy(p, c.stored[b.Id][off:]); n < len(p) {
		c.t.Errorf("read of %d bytes at %d of block %d", len(p), off, b.Id)
	}
	return nil
}

func (c *cluster) Extents(ctx context.Context, q *wire.GetExtents) (*wire.ExtentsAnswer, error) {
	if c.onExtents != nil {
		if err := c.onExtents(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[q.Ino]
	if f == nil {
		return nil, wire.NotFound
	}
	limit := cmp.Or(q.Limit, 4096)
	if c.pageLimit > 0 {
		limit = min(limit, c.pageLimit)
	}
	end := int64(q.Off + q.Len)
	if q.Len == 0 {
		end = maxOff
	}
	a := &wire.ExtentsAnswer{Inode: f.copy(), Upto: f.inode.Attr.Size}
	seen := map[uint64]bool{}
	for s := range f.extents.over(int64(q.Off), end) {
		if uint32(len(a.Extents)) == limit {
			a.Upto = uint64(s.off)
			break
		}
		a.Extents = append(a.Extents, &wire.Extent{Off: uint64(s.off), Len: uint32(s.len()), Block: s.src, BlockOff: uint32(s.at)})
		if !seen[s.src] {
			seen[s.src] = true
			a.Blocks = append(a.Blocks, c.blocks[s.src])
		}
	}
	return a, nil
}

func (c *cluster) Commit(ctx context.Context, m *wire.Commit) (*wire.Result, error) {
	var after error
	if c.onCommit != nil {
		var before error
		if before, after = c.onCommit(ctx, m); before != nil {
			return nil, before
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	made := map[uint64]bool{}
	for _, b := range m.Blocks {
		if c.blocks[b.Id] != nil {
			return nil, wire.Exists
		}
		made[b.Id] = true
	}
	seen := map[uint64]bool{}
	for _, u := range m.Files {
		if seen[u.Ino] {
			c.t.Errorf("inode %d is there twice", u.Ino)
		}
		seen[u.Ino] = true
		if err := c.checkUpdate(u, made); err != nil {
			return nil, err
		}
	}
	for _, b := range m.Blocks {
		c.blocks[b.Id] = b
	}
	r := &wire.Result{}
	for _, u := range m.Files {
		f := c.files[u.Ino]
		if f == nil {
			r.Inodes = append(r.Inodes, &wire.Inode{})
			continue
		}
		size := max(f.inode.Attr.Size, u.MinSize)
		if u.HasInline {
			f.inode.HasInline, f.inode.Inline = true, bytes.Clone(u.Inline)
			f.extents.reset()
		} else if u.DropInline || len(u.Extents) > 0 {
			f.inode.HasInline, f.inode.Inline = false, nil
		}
		for _, e := range u.Extents {
			f.extents.set(span[uint64]{off: int64(e.Off), end: int64(e.Off) + int64(e.Len), at: int64(e.BlockOff), src: e.Block})
			size = max(size, e.Off+uint64(e.Len))
		}
		f.inode.Attr.Size = size
		f.inode.Attr.MtimeNs = 0
		if u.Attr.GetMask()&wire.SetMtime != 0 {
			f.inode.Attr.MtimeNs = u.Attr.MtimeNs
		}
		if u.Attr.GetMask()&wire.SetMode != 0 {
			f.inode.Attr.Mode = u.Attr.Mode
		}
		r.Inodes = append(r.Inodes, c.changed(f))
	}
	c.commits = append(c.commits, m)
	if after != nil {
		return nil, after
	}
	return r, nil
}

func (c *cluster) checkUpdate(u *wire.FileUpdate, made map[uint64]bool) error {
	f := c.files[u.Ino]
	if f == nil {
		return nil
	}
	at, covered := uint64(0), uint64(0)
	for _, e := range u.Extents {
		if !made[e.Block] {
			if c.blocks[e.Block] == nil {
				c.t.Errorf("inode %d: block %d is not committed", u.Ino, e.Block)
				return wire.Stale
			}
			if !c.refers(e.Block) {
				return wire.Stale
			}
		}
		if e.Len == 0 || e.Off < at || int(e.BlockOff+e.Len) > len(c.stored[e.Block]) {
			c.t.Errorf("inode %d: bad extent %v", u.Ino, e)
			return wire.Invalid
		}
		if e.Off == covered {
			covered += uint64(e.Len)
		}
		at = e.Off + uint64(e.Len)
	}
	if len(u.Extents) > 0 && f.inode.HasInline && covered < uint64(len(f.inode.Inline)) && !c.holey {
		c.t.Errorf("inode %d: the commit loses inline content: %d of %d bytes", u.Ino, covered, len(f.inode.Inline))
	}
	if u.HasInline && (len(u.Extents) > 0 || u.DropInline || len(u.Inline) > int(f.inode.Policy.InlineMax)) {
		c.t.Errorf("inode %d: bad inline update", u.Ino)
	}
	return nil
}

// refers says whether an extent names the block: else it is on its way out.
func (c *cluster) refers(id uint64) bool {
	for _, f := range c.files {
		for s := range f.extents.all() {
			if s.src == id {
				return true
			}
		}
	}
	return false
}

// counts returns how many blocks and commits there have been.
func (c *cluster) counts() (blocks, commits int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.blocks), len(c.commits)
}

func policy(k, m, blockSize, inline int) block.Policy {
	return block.Policy{K: k, M: m, BlockSize: blockSize, InlineMax: inline}.Resolved()
}

// fill makes n bytes that tell their place.
func fill(seed, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func mustWrite(t testing.TB, f *File, b []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(t.Context(), b, off); err != nil || n != len(b) {
		t.Fatalf("write %d at %d: %d, %v", len(b), off, n, err)
	}
}

func mustFlush(t testing.TB, f *File) {
	t.Helper()
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// wantContent reads the whole file and compares.
func wantContent(t testing.TB, f *File, want []byte) {
	t.Helper()
	if f.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", f.Size(), len(want))
	}
	got := make([]byte, len(want)+1)
	n, err := f.ReadAt(t.Context(), got, 0)
	if n != len(want) || err == nil {
		t.Fatalf("read %d bytes, %v; want %d and EOF", n, err, len(want))
	}
	if i := firstDiff(got[:n], want); i >= 0 {
		t.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
	}
}

func firstDiff(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// closed closes the path at the end of the test and checks that no dirty
// memory was left behind.
func closed(t *testing.T, p *Path) {
	t.Helper()
	if err := p.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
	if s := p.Stats(); s.Dirty != 0 {
		t.Errorf("%d bytes still count as dirty", s.Dirty)
	}
	if len(p.open) != 0 || len(p.stuck) != 0 {
		t.Errorf("%d open drafts, %d stuck", len(p.open), len(p.stuck))
	}
}

func extentsOf(c *wire.Commit) string {
	var s []string
	for _, u := range c.Files {
		for _, e := range u.Extents {
			s = append(s, fmt.Sprintf("%d:%d+%d@%d", u.Ino, e.Off, e.Len, e.BlockOff))
		}
	}
	slices.Sort(s)
	return fmt.Sprint(s)
}
