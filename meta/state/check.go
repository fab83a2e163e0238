package state

import (
	"fmt"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// Problem is a contradiction within the state.
type Problem struct {
	Object string // "inode 1030", "block 7"
	Text   string
}

func (p Problem) String() string { return p.Object + ": " + p.Text }

// maxProblems ends the list: a state that wrong is not worth more lines.
const maxProblems = 1000

// Check reads the whole state once and holds its parts against each other:
// names and link counts, directories and their entries, extents and blocks, the
// index of holders, orphans, jobs, counters. It takes memory for every inode
// and block.
func (s *State) Check() ([]Problem, error) {
	c := &checker{
		inodes: map[uint64]*inodeTally{}, blocks: map[uint64]*blockTally{},
		sessions: map[uint64]uint64{}, jobs: map[uint64]*jobTally{}, names: map[string]uint64{}, loads: map[uint32]*wire.UserJobs{},
	}
	err := s.read(func(v *view) {
		c.v = v
		v.scan(nil, nil, c.see)
		c.counts = v.counters()
		c.checkInodes()
		c.checkBlocks()
		c.checkSessions()
		c.checkJobs()
		c.checkRefusals()
		c.checkAccounts()
		c.checkCounters()
	})
	return c.problems, err
}

// inodeTally is what the state says of one inode, from all sides.
type inodeTally struct {
	rec    *wire.Inode // without its inline data
	inline int

	names   uint32 // dentries that name it
	dir     uint64 // the directory of one of them
	kind    uint32 // the type that they say
	entries uint64 // dentries in it
	subdirs uint32

	extents uint64 // bytes
	lastEnd uint64
	xattrs  int
	acls    int
	holders []uint64
	trash   bool
	placed  bool // its ancestors lead to a root
}

type blockTally struct {
	rec        *wire.Block
	refs, live uint64
	held       map[uint32]bool
	freed      bool
}

type jobTally struct {
	rec      *wire.Job
	active   bool
	tasks    []*wire.Task // what is stored of them
	template bool
	staged   *wire.Staged
	dropped  bool
	user     []uint32 // owners that the index has
	due      []int64  // when it is to be removed, by the index
	ended    [][]byte // keys in the index of jobs that have ended
}

type checker struct {
	v        *view
	problems []Problem
	inodes   map[uint64]*inodeTally
	blocks   map[uint64]*blockTally
	sessions map[uint64]uint64 // id → ack_below
	replies  []reply
	jobs     map[uint64]*jobTally
	loads    map[uint32]*wire.UserJobs
	dropped  uint64
	names    map[string]uint64
	nodes    uint64 // the highest id
	refusals refusalTally
	accounts accountTally
	counts   counters
}

type reply struct{ session, seq uint64 }

func (c *checker) bad(object string, format string, args ...any) bool {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{object, fmt.Sprintf(format, args...)})
	}
	return true
}

func (c *checker) inode(ino uint64) *inodeTally {
	t := c.inodes[ino]
	if t == nil {
		t = new(inodeTally)
		c.inodes[ino] = t
	}
	return t
}

func (c *checker) block(id uint64) *blockTally {
	t := c.blocks[id]
	if t == nil {
		t = &blockTally{held: map[uint32]bool{}}
		c.blocks[id] = t
	}
	return t
}

func (c *checker) job(id uint64) *jobTally {
	t := c.jobs[id]
	if t == nil {
		t = new(jobTally)
		c.jobs[id] = t
	}
	return t
}

// lengths are the exact key lengths; 0: any above 9.
var lengths = map[byte]int{
	kInode: 9, kExtent: 17, kBlock: 9, kSession: 9, kReply: 17, kOrphan: 17, kHeld: 13, kFreed: 17,
	kNode: 5, kTrash: 9,
}

// see takes in one key. It always goes on.
func (c *checker) see(key, value []byte) bool {
	if n, fixed := lengths[key[0]]; fixed && len(key) != n {
		return c.bad(fmt.Sprintf("key %q", key), "wrong length")
	}
	switch key[0] {
	case kInode:
		c.seeInode(key, value)
	case kDentry:
		c.seeDentry(key, value)
	case kXattr:
		if len(key) < 10 {
			return c.bad(fmt.Sprintf("key %q", key), "wrong length")
		}
		t := c.inode(num64(key[1:]))
		t.xattrs++
		if name := string(key[9:]); name == acl.Access || name == acl.Default {
			t.acls++
			if _, err := acl.Decode(value); err != nil {
				c.bad(fmt.Sprintf("inode %d", num64(key[1:])), "%s: %v", name, err)
			}
		}
	case kExtent:
		c.seeExtent(key, value)
	case kBlock:
		b := new(wire.Block)
		if c.v.decode(key, value, b) {
			if c.block(num64(key[1:])).rec = b; b.Id != num64(key[1:]) {
				c.bad(fmt.Sprintf("block %d", num64(key[1:])), "its record says %d", b.Id)
			}
		}
	case kSession:
		rec := new(wire.Session)
		if c.v.decode(key, value, rec) {
			c.sessions[num64(key[1:])] = rec.AckBelow
		}
	case kReply:
		c.replies = append(c.replies, reply{num64(key[1:]), num64(key[9:])})
	case kOrphan:
		t := c.inode(num64(key[1:]))
		t.holders = append(t.holders, num64(key[9:]))
	case kHeld:
		c.block(num64(key[5:])).held[num32(key[1:])] = true
	case kFreed:
		t := c.block(num64(key[9:]))
		if t.freed = true; t.rec != nil && t.rec.FreedNs != unordered(num64(key[1:])) {
			c.bad(fmt.Sprintf("block %d", num64(key[9:])), "queued for deletion under another time than its own")
		}
	case kNode:
		c.nodes = max(c.nodes, uint64(num32(key[1:])))
	case kTrash:
		c.inode(num64(key[1:])).trash = true
	case kJob:
		c.seeJob(key, value)
	case kParam:
	default:
		c.bad(fmt.Sprintf("key %q", key), "unknown kind")
	}
	return true
}

func (c *checker) seeInode(key, value []byte) {
	in := new(wire.Inode)
	if !c.v.decode(key, value, in) {
		return
	}
	t := c.inode(num64(key[1:]))
	t.inline, in.Inline = len(in.Inline), nil
	if in.Attr == nil {
		in.Attr = new(wire.Attr)
	}
	t.rec = in
}

func (c *checker) seeDentry(key, value []byte) {
	d := new(wire.Dentry)
	if !c.v.decode(key, value, d) {
		return
	}
	parent, cookie, name, err := splitDentry(key)
	if err != nil || cookie != Cookie(name) || checkName(name) != wire.OK {
		c.bad(fmt.Sprintf("key %q", key), "not the key of an entry")
		return
	}
	p, t := c.inode(parent), c.inode(d.Ino)
	p.entries++
	if d.Type == sIFDIR {
		p.subdirs++
	}
	if t.names++; t.names > 1 && t.kind != d.Type {
		c.bad(fmt.Sprintf("inode %d", d.Ino), "its names say different types")
	}
	t.dir, t.kind = parent, d.Type
}

func (c *checker) seeExtent(key, value []byte) {
	ex := new(wire.Extent)
	if !c.v.decode(key, value, ex) {
		return
	}
	ino, object := num64(key[1:]), fmt.Sprintf("inode %d", num64(key[1:]))
	t := c.inode(ino)
	switch {
	case end(ex) != num64(key[9:]):
		c.bad(object, "the extent at %d has the key of another end", ex.Off)
	case ex.Len == 0:
		c.bad(object, "the extent at %d is empty", ex.Off)
	case ex.Off < t.lastEnd:
		c.bad(object, "the extent at %d overlaps the one before", ex.Off)
	}
	t.extents += uint64(ex.Len)
	t.lastEnd = end(ex)
	b := c.block(ex.Block)
	b.refs++
	b.live += uint64(ex.Len)
	if b.rec != nil && uint64(ex.BlockOff)+uint64(ex.Len) > uint64(b.rec.Length) { // b/ sorts before e/
		c.bad(object, "the extent at %d leaves block %d", ex.Off, ex.Block)
	}
}

func (c *checker) checkInodes() {
	for ino, t := range c.inodes {
		object := fmt.Sprintf("inode %d", ino)
		if t.rec == nil {
			c.checkGone(object, t)
			continue
		}
		a := t.rec.Attr
		if a.Ino != ino {
			c.bad(object, "its record says %d", a.Ino)
		}
		if t.rec.Policy.GetK() == 0 {
			c.bad(object, "no policy")
		}
		if t.names > 0 && t.kind != a.Mode&sIFMT {
			c.bad(object, "its name says type %o, it is %o", t.kind, a.Mode&sIFMT)
		}
		if isDir(t.rec) {
			c.checkDir(object, ino, t)
		} else if a.Nlink != t.names {
			c.bad(object, "link count %d, %d names", a.Nlink, t.names)
		}
		if (a.Nlink == 0) != (len(t.holders) > 0) {
			c.bad(object, "link count %d, held open by %d sessions", a.Nlink, len(t.holders))
		}
		for _, id := range t.holders {
			if _, ok := c.sessions[id]; !ok {
				c.bad(object, "held open by session %d, which does not exist", id)
			}
		}
		if t.rec.HasXattr != (t.xattrs > 0) || t.rec.HasAcl != (t.acls > 0) {
			c.bad(object, "%d extended attributes, %d ACLs: its flags say otherwise", t.xattrs, t.acls)
		}
		c.checkContent(object, t)
	}
}

// checkGone: nothing may belong to an inode that does not exist, but the
// extents that wait for their removal.
func (c *checker) checkGone(object string, t *inodeTally) {
	switch {
	case t.names > 0:
		c.bad(object, "named in directory %d, but does not exist", t.dir)
	case t.entries > 0 || t.xattrs > 0 || len(t.holders) > 0:
		c.bad(object, "does not exist, but has entries, attributes or holders")
	case t.trash != (t.extents > 0):
		c.bad(object, "does not exist: %d bytes of extents, waiting for removal: %v", t.extents, t.trash)
	}
}

func (c *checker) checkDir(object string, ino uint64, t *inodeTally) {
	in, root := t.rec, ino == wire.RootIno || ino == wire.OutputsIno
	links := 2 + t.subdirs
	if t.names == 0 && !root {
		links = 0
	}
	if in.Attr.Nlink != links {
		c.bad(object, "link count %d of a directory with %d names and %d subdirectories", in.Attr.Nlink, t.names, t.subdirs)
	}
	if in.Entries != t.entries {
		c.bad(object, "counts %d entries, has %d", in.Entries, t.entries)
	}
	switch {
	case root && (t.names != 0 || in.Parent != ino):
		c.bad(object, "a root with a parent")
	case t.names > 1:
		c.bad(object, "a directory with %d names", t.names)
	case t.names == 1 && in.Parent != t.dir:
		c.bad(object, "named in directory %d, its parent is %d", t.dir, in.Parent)
	case t.names == 1 && !c.placed(ino):
		c.bad(object, "its ancestors do not lead to the root")
	}
}

// placed follows the parents of a directory up to a root.
func (c *checker) placed(ino uint64) bool {
	var path []*inodeTally
	for range len(c.inodes) {
		t := c.inodes[ino]
		if t == nil || t.rec == nil {
			return false
		}
		if t.placed || ino == wire.RootIno || ino == wire.OutputsIno {
			for _, p := range path {
				p.placed = true
			}
			return true
		}
		path = append(path, t)
		ino = t.rec.Parent
	}
	return false
}

func (c *checker) checkContent(object string, t *inodeTally) {
	in := t.rec
	allocated := t.extents
	if in.HasInline {
		allocated += uint64(t.inline)
	}
	switch {
	case in.Attr.Mode&sIFMT != sIFREG && (t.extents > 0 || t.inline > 0):
		c.bad(object, "has data, but is no regular file")
	case t.inline > 0 && !in.HasInline, in.HasInline && t.extents > 0:
		c.bad(object, "inline data and extents")
	case in.Attr.Allocated != allocated:
		c.bad(object, "says %d bytes are allocated, they are %d", in.Attr.Allocated, allocated)
	case isRegular(in) && in.Attr.Size < max(t.lastEnd, uint64(t.inline)):
		c.bad(object, "has data beyond its size")
	case isSymlink(in) && in.Attr.Size != uint64(len(in.Symlink)):
		c.bad(object, "the size is not that of its target")
	}
}

func (c *checker) checkBlocks() {
	for id, t := range c.blocks {
		object, b := fmt.Sprintf("block %d", id), t.rec
		if b == nil {
			c.bad(object, "named by extents or indexes, but does not exist")
			continue
		}
		if b.Refs != t.refs || b.Live != t.live {
			c.bad(object, "counts %d references and %d live bytes, has %d and %d", b.Refs, b.Live, t.refs, t.live)
		}
		if free := b.Refs == 0; free != t.freed || free != (b.FreedIndex != 0) {
			c.bad(object, "%d references, queued for deletion: %v, freed at %d", b.Refs, t.freed, b.FreedIndex)
		}
		if len(b.Shards) != int(b.K+b.M) {
			c.bad(object, "%d shards, not %d+%d", len(b.Shards), b.K, b.M)
		}
		want := map[uint32]bool{}
		for _, s := range b.Shards {
			if s.Server == 0 && b.FreedIndex != 0 {
				continue
			}
			if want[s.Server] && s.Server != 0 {
				c.bad(object, "two shards on server %d", s.Server)
			}
			want[s.Server] = true
			if !t.held[s.Server] {
				c.bad(object, "not in the index of server %d", s.Server)
			}
		}
		for server := range t.held {
			if !want[server] {
				c.bad(object, "in the index of server %d, which does not hold it", server)
			}
		}
	}
}

func (c *checker) checkSessions() {
	for _, r := range c.replies {
		below, ok := c.sessions[r.session]
		if !ok || r.seq < below {
			c.bad(fmt.Sprintf("session %d", r.session), "has a reply to command %d, which nobody asks for", r.seq)
		}
	}
}

func (c *checker) checkCounters() {
	want := c.counts // those that are not tallied stay
	want[countInodes], want[countBlocks], want[countLive] = 0, 0, 0
	want[countDegraded], want[countFreed], want[countTrash] = 0, 0, 0
	var ino, id uint64
	for n, t := range c.inodes {
		if ino = max(ino, n); t.rec != nil {
			want[countInodes]++
		}
		if t.trash {
			want[countTrash]++
		}
	}
	for n, t := range c.blocks {
		id = max(id, n)
		want[countBlocks]++
		want[countLive] += t.live
		if t.freed {
			want[countFreed]++
		}
		if t.held[0] {
			want[countDegraded]++
		}
	}
	if c.counts[ticketFloor] > c.counts[nextBlock] {
		c.bad("counter "+counterNames[ticketFloor], "is %d, above any id given out", c.counts[ticketFloor])
	}
	want[ticketFloor] = c.counts[ticketFloor]
	want[countDropped] = c.dropped
	for n := range want {
		if want[n] != c.counts[n] {
			c.bad("counter "+counterNames[n], "is %d, should be %d", c.counts[n], want[n])
		}
	}
	above := func(next counter, highest uint64) {
		if highest >= c.counts[next] {
			c.bad("counter "+counterNames[next], "is %d, but %d has been given out", c.counts[next], highest)
		}
	}
	above(nextIno, ino)
	above(nextBlock, id)
	above(nextNode, c.nodes)
	for id := range c.sessions {
		above(nextSession, id)
	}
	for id := range c.jobs {
		above(nextJob, id)
	}
}
