package state

import (
	"math/rand/v2"

	"quernfs/internal/wire"
)

// model is a POSIX filesystem in maps: what the state machine is held against.
// Permissions are the mode bits alone; ACLs have tests of their own. Its
// methods check, change the model, and return the expected code.
type model struct {
	nodes map[uint64]*node
	root  *node
}

type node struct {
	ino          uint64
	mode         uint32
	uid, gid     uint32
	nlink        int
	size         uint64
	inline       bool
	cells        map[uint64]cell // bytes that are not in a hole
	children     map[string]*node
	parent       *node
	holders      map[uint64]bool
	mtime, ctime int64
}

// cell is one byte of content: a byte of a block, or an inline one.
type cell struct {
	block uint64
	off   uint32
	text  byte
}

func newModel() *model {
	m := &model{nodes: map[uint64]*node{}}
	m.root = m.add(wire.RootIno, sIFDIR|0o755, 0, 0, nil)
	return m
}

func (m *model) add(ino uint64, mode, uid, gid uint32, parent *node) *node {
	n := &node{ino: ino, mode: mode, uid: uid, gid: gid, nlink: 1, parent: parent, cells: map[uint64]cell{}, holders: map[uint64]bool{}}
	if mode&sIFMT == sIFDIR {
		n.children, n.nlink, n.size = map[string]*node{}, 2, dirSize
	}
	m.nodes[ino] = n
	return n
}

func (n *node) dir() bool { return n.children != nil }

func groups(c *wire.Cred, gid uint32) bool {
	for _, g := range append([]uint32{c.Gid}, c.Groups...) {
		if g == gid {
			return true
		}
	}
	return false
}

func (n *node) may(c *wire.Cred, mask uint32) bool {
	switch {
	case c.Uid == 0:
		return mask&MayExec == 0 || n.dir() || n.mode&0o111 != 0
	case c.Uid == n.uid:
		return n.mode>>6&mask == mask
	case groups(c, n.gid):
		return n.mode>>3&mask == mask
	}
	return n.mode&mask == mask
}

// at finds an entry; dead directories have none.
func (m *model) at(c *wire.Cred, dir *node, name string) (*node, wire.Code) {
	switch {
	case dir.nlink == 0:
		return nil, wire.NotFound
	case !dir.dir():
		return nil, wire.NotDir
	case !dir.may(c, MayExec):
		return nil, wire.Denied
	}
	return dir.children[name], wire.OK
}

// mayHold: of /.compute/users an ordinary user makes no entry whose name is a letter.
func (n *node) mayHold(c *wire.Cred) bool { return n.ino != wire.UsersIno || c.Uid == 0 }

func (m *model) create(c *wire.Cred, now int64, op *wire.Create, ino uint64) wire.Code {
	dir := m.nodes[op.Parent]
	old, code := m.at(c, dir, op.Name)
	if code != wire.OK {
		return code
	}
	kind := op.Mode & sIFMT
	if old != nil {
		switch {
		case op.Exclusive || kind != sIFREG || old.mode&sIFMT == sIFLNK:
			return wire.Exists
		case old.dir():
			return wire.IsDir
		}
		return wire.OK
	}
	if !dir.may(c, MayWrite|MayExec) {
		return wire.Denied
	}
	if !dir.mayHold(c) {
		return wire.Perm
	}
	mode, gid := op.Mode&permBits, c.Gid
	if kind == sIFDIR {
		mode &= 0o1777
	}
	if dir.mode&sISGID != 0 {
		gid = dir.gid
		if kind == sIFDIR {
			mode |= sISGID
		} else if mode&0o2010 == 0o2010 && c.Uid != 0 && !groups(c, gid) {
			mode &^= sISGID
		}
	}
	mode &^= op.Umask
	if kind == sIFLNK {
		mode = 0o777
	}
	n := m.add(ino, kind|mode, c.Uid, gid, dir)
	n.mtime, n.ctime = now, now
	if kind == sIFLNK {
		n.size = uint64(len(op.Symlink))
	}
	dir.children[op.Name] = n
	if n.dir() {
		dir.nlink++
	}
	dir.mtime, dir.ctime = now, now
	return wire.OK
}

func (m *model) mayDelete(c *wire.Cred, dir, n *node, asDir bool) wire.Code {
	switch {
	case !dir.may(c, MayWrite|MayExec):
		return wire.Denied
	case dir.mode&sISVTX != 0 && c.Uid != 0 && c.Uid != n.uid && c.Uid != dir.uid:
		return wire.Perm
	case asDir && !n.dir():
		return wire.NotDir
	case !asDir && n.dir():
		return wire.IsDir
	case n.ino < wire.FirstIno:
		return wire.Busy
	}
	return wire.OK
}

// drop takes a name from n, which open sessions may keep alive.
func (m *model) drop(n *node, now int64, open []uint64) {
	if n.nlink--; n.dir() {
		n.nlink = 0
	}
	n.ctime = now
	if n.nlink > 0 {
		return
	}
	for _, id := range open {
		n.holders[id] = true
	}
	m.collect(n)
}

func (m *model) collect(n *node) {
	if n.nlink == 0 && len(n.holders) == 0 {
		delete(m.nodes, n.ino)
	}
}

func (m *model) unlink(c *wire.Cred, now int64, op *wire.Unlink) wire.Code {
	dir := m.nodes[op.Parent]
	n, code := m.at(c, dir, op.Name)
	switch {
	case code != wire.OK:
		return code
	case n == nil:
		return wire.NotFound
	}
	if code := m.mayDelete(c, dir, n, op.Dir); code != wire.OK {
		return code
	}
	if n.dir() && len(n.children) > 0 {
		return wire.NotEmpty
	}
	delete(dir.children, op.Name)
	if n.dir() {
		dir.nlink--
	}
	dir.mtime, dir.ctime = now, now
	m.drop(n, now, op.OpenSessions)
	return wire.OK
}

func (n *node) inside(other *node) bool {
	for ; n != nil; n = n.parent {
		if n == other {
			return true
		}
	}
	return false
}

func (m *model) rename(c *wire.Cred, now int64, op *wire.Rename) wire.Code {
	from, to := m.nodes[op.Parent], m.nodes[op.NewParent]
	n, code := m.at(c, from, op.Name)
	if code != wire.OK {
		return code
	}
	victim, code := m.at(c, to, op.NewName)
	exchange := op.Flags == renameExchange
	switch {
	case code != wire.OK:
		return code
	case n == nil || exchange && victim == nil:
		return wire.NotFound
	case victim != nil && op.Flags == renameNoReplace:
		return wire.Exists
	case n == victim:
		return wire.OK
	case n.dir() && to.inside(n) || exchange && victim.dir() && from.inside(victim):
		return wire.Invalid
	}
	if code := m.mayDelete(c, from, n, n.dir()); code != wire.OK {
		return code
	}
	switch {
	case victim == nil:
		if !to.may(c, MayWrite|MayExec) {
			return wire.Denied
		}
	case exchange:
		code = m.mayDelete(c, to, victim, victim.dir())
	default:
		code = m.mayDelete(c, to, victim, n.dir())
	}
	if code != wire.OK {
		return code
	}
	if !to.mayHold(c) || exchange && !from.mayHold(c) {
		return wire.Perm
	}
	if from != to && (n.dir() && !n.may(c, MayWrite) || exchange && victim.dir() && !victim.may(c, MayWrite)) {
		return wire.Denied
	}
	if victim != nil && !exchange && len(victim.children) > 0 {
		return wire.NotEmpty
	}
	delete(from.children, op.Name)
	if victim != nil {
		delete(to.children, op.NewName)
	}
	place := func(n, from, to *node, name string) {
		to.children[name] = n
		n.ctime = now
		if n.dir() {
			n.parent = to
			from.nlink--
			to.nlink++
		}
	}
	place(n, from, to, op.NewName)
	switch {
	case exchange:
		place(victim, to, from, op.Name)
	case victim != nil:
		if victim.dir() {
			to.nlink--
		}
		m.drop(victim, now, op.OpenSessions)
	}
	from.mtime, from.ctime, to.mtime, to.ctime = now, now, now, now
	return wire.OK
}

func (m *model) link(c *wire.Cred, now int64, op *wire.Link) wire.Code {
	n, dir := m.nodes[op.Ino], m.nodes[op.NewParent]
	old, code := m.at(c, dir, op.NewName)
	switch {
	case code != wire.OK:
		return code
	case old != nil:
		return wire.Exists
	case !dir.may(c, MayWrite|MayExec):
		return wire.Denied
	case n.dir() || !dir.mayHold(c):
		return wire.Perm
	case n.nlink == 0:
		return wire.NotFound
	}
	n.nlink++
	n.ctime = now
	dir.children[op.NewName] = n
	dir.mtime, dir.ctime = now, now
	return wire.OK
}

func (n *node) killSuid(member bool) {
	if n.dir() {
		return
	}
	n.mode &^= sISUID
	if n.mode&sIXGRP != 0 || !member {
		n.mode &^= sISGID
	}
}

func (m *model) setAttr(c *wire.Cred, now int64, op *wire.SetAttr) wire.Code {
	n := m.nodes[op.Ino]
	owner := c.Uid == 0 || c.Uid == n.uid
	if op.Mask&wire.SetSize != 0 {
		switch {
		case n.dir():
			return wire.IsDir
		case n.mode&sIFMT != sIFREG:
			return wire.Invalid
		case !n.may(c, MayWrite):
			return wire.Denied
		}
	}
	if op.Mask&wire.SetUID != 0 && c.Uid != 0 && (!owner || op.Uid != n.uid) {
		return wire.Perm
	}
	if op.Mask&wire.SetGID != 0 && c.Uid != 0 && (!owner || op.Gid != n.gid && !groups(c, op.Gid)) {
		return wire.Perm
	}
	if op.Mask&wire.SetMode != 0 {
		switch {
		case !owner:
			return wire.Perm
		case n.mode&sIFMT == sIFLNK:
			return wire.Unsupported
		}
	}
	if op.Mask&wire.SetSize != 0 {
		for off := range n.cells {
			if off >= op.Size {
				delete(n.cells, off)
			}
		}
		n.size, n.mtime = op.Size, now
		if c.Uid != 0 {
			n.killSuid(groups(c, n.gid))
		}
	}
	if op.Mask&(wire.SetUID|wire.SetGID) != 0 {
		n.killSuid(c.Uid == 0 || groups(c, n.gid))
		if op.Mask&wire.SetUID != 0 {
			n.uid = op.Uid
		}
		if op.Mask&wire.SetGID != 0 {
			n.gid = op.Gid
		}
	}
	if op.Mask&wire.SetMode != 0 {
		mode := op.Mode
		if c.Uid != 0 && !groups(c, n.gid) {
			mode &^= sISGID
		}
		n.mode = n.mode&sIFMT | mode
	}
	n.ctime = now
	return wire.OK
}

func (m *model) commit(now int64, op *wire.Commit) wire.Code {
	for _, f := range op.Files {
		n := m.nodes[f.Ino]
		if n == nil {
			continue
		}
		if f.HasInline {
			n.cells, n.inline = map[uint64]cell{}, true
			for i, b := range f.Inline {
				n.cells[uint64(i)] = cell{text: b}
			}
			n.size = max(n.size, uint64(len(f.Inline)))
		} else {
			if n.inline && f.DropInline {
				n.cells, n.inline = map[uint64]cell{}, false
			}
			for _, ex := range f.Extents {
				for i := range uint64(ex.Len) {
					n.cells[ex.Off+i] = cell{block: ex.Block, off: ex.BlockOff + uint32(i)}
				}
				n.size = max(n.size, end(ex))
			}
		}
		n.mtime, n.ctime = now, now
	}
	return wire.OK
}

func (m *model) punch(c *wire.Cred, now int64, op *wire.Fallocate) wire.Code {
	n := m.nodes[op.Ino]
	for i := range op.Len {
		if cl, ok := n.cells[op.Off+i]; ok && cl.block == 0 {
			n.cells[op.Off+i] = cell{}
		} else {
			delete(n.cells, op.Off+i)
		}
	}
	n.mtime, n.ctime = now, now
	if c.Uid != 0 {
		n.killSuid(groups(c, n.gid))
	}
	return wire.OK
}

// pick returns a random node for which ok holds, in an order that depends on
// the seed alone.
func (m *model) pick(rng *rand.Rand, ok func(*node) bool) *node {
	var best *node
	var score uint64
	salt := rng.Uint64()
	for ino, n := range m.nodes {
		h := (ino ^ salt) * 0x9E3779B97F4A7C15
		h ^= h >> 29
		h *= 0xBF58476D1CE4E5B9
		if ok(n) && (best == nil || h > score) {
			best, score = n, h
		}
	}
	return best
}

func (m *model) clone(c *wire.Cred, now int64, op *wire.Clone) wire.Code {
	src, dst := m.nodes[op.Src], m.nodes[op.Dst]
	if op.SrcOff >= src.size {
		return wire.OK
	}
	n := min(op.Len, src.size-op.SrcOff)
	if src == dst && op.SrcOff < op.DstOff+n && op.DstOff < op.SrcOff+n {
		return wire.Invalid
	}
	for i := range n {
		if cl, ok := src.cells[op.SrcOff+i]; ok {
			dst.cells[op.DstOff+i] = cl
		} else {
			delete(dst.cells, op.DstOff+i)
		}
	}
	dst.size = max(dst.size, op.DstOff+n)
	dst.mtime, dst.ctime = now, now
	if c.Uid != 0 {
		dst.killSuid(groups(c, dst.gid))
	}
	return wire.OK
}
