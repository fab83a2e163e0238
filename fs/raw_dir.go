package fs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"quernfs/internal/wire"
)

func (r *raw) OpenDir(cancel <-chan struct{}, q *fuse.OpenIn, out *fuse.OpenOut) (st fuse.Status) {
	h := &handle{ino: q.NodeId, flags: q.Flags}
	if !isVirtual(q.NodeId) {
		ctx, done := r.bound(&q.InHeader)
		defer done(&st)
		h.in = r.fs.inode(q.NodeId)
		if err := r.fs.opened(ctx, h.in); err != nil {
			return r.gone(err)
		}
		h.stream = &dirStream{in: h.in}
	}
	out.Fh = r.add(h)
	return fuse.OK
}

func (r *raw) ReleaseDir(q *fuse.ReleaseIn) {
	if h := r.remove(q.Fh); h != nil {
		r.drop(h)
	}
}

// FsyncDir has nothing to do: commands are durable when they are answered.
func (r *raw) FsyncDir(cancel <-chan struct{}, q *fuse.FsyncIn) fuse.Status { return fuse.OK }

func (r *raw) ReadDir(cancel <-chan struct{}, q *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(q, out, false)
}

func (r *raw) ReadDirPlus(cancel <-chan struct{}, q *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(q, out, true)
}

func (r *raw) readDir(q *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	h := r.handle(q.Fh)
	if h == nil {
		return fuse.EBADF
	}
	ctx, done := r.fs.bound()
	defer done()
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &lister{r: r, unique: q.Unique, out: out, room: int(q.Size), plus: plus}
	from := q.Offset
	if from < cookieDot {
		if !l.dot(ctx, h, ".", cookieDot) {
			return fuse.OK
		}
	}
	if from < cookieDotDot {
		if !l.dot(ctx, h, "..", cookieDotDot) {
			return fuse.OK
		}
		from = cookieDotDot
	}
	if h.in == nil || h.ino == wire.ComputeIno && r.fs.over() != nil {
		if q.Offset == 0 || h.extra == nil {
			if err := r.listOverlay(ctx, h, cred(&q.InHeader)); err != nil {
				return r.status(err)
			}
		}
		l.add(h.in, h.extra[min(int(from-cookieDotDot), len(h.extra)):])
		return fuse.OK
	}
	if q.Offset == 0 {
		h.stream.page = nil
	}
	for {
		list, err := h.stream.after(ctx, rootCred, from, plus)
		if err != nil {
			if l.n > 0 {
				return fuse.OK
			}
			return r.gone(err)
		}
		if len(list) == 0 || !l.add(h.in, list) {
			return fuse.OK
		}
		from = list[len(list)-1].Cookie
		if l.n >= dirPage {
			return fuse.OK
		}
	}
}

// listOverlay takes the whole listing of a directory with synthetic entries;
// its cookies are positions.
func (r *raw) listOverlay(ctx context.Context, h *handle, c *wire.Cred) error {
	o := r.fs.over()
	if o == nil {
		h.extra = []*wire.DirEntry{}
		return nil
	}
	list, err := o.ReadDir(ctx, c, h.ino)
	if err != nil {
		return err
	}
	list = append([]*wire.DirEntry{}, list...)
	if h.in != nil {
		have := map[string]bool{}
		for _, e := range list {
			have[e.Name] = true
		}
		own, err := r.fs.readAll(ctx, h.in)
		if err != nil {
			return err
		}
		for _, e := range own {
			if !have[e.Name] {
				list = append(list, e)
			}
		}
	}
	h.extra = make([]*wire.DirEntry, 0, len(list))
	for i, e := range list {
		h.extra = append(h.extra, &wire.DirEntry{Name: e.Name, Ino: e.Ino, Type: e.Type, Cookie: uint64(cookieDotDot + 1 + i)})
	}
	return nil
}

// lister fills one reply with entries.
type lister struct {
	r      *raw
	unique uint64
	out    *fuse.DirEntryList
	room   int // bytes left
	plus   bool
	n      int
}

const (
	direntBytes = 24
	entryBytes  = 128
)

// size is what an entry takes in the reply.
func (l *lister) size(name string) int {
	n := direntBytes + (len(name)+7)&^7
	if l.plus {
		n += entryBytes
	}
	return n
}

func (l *lister) dot(ctx context.Context, h *handle, name string, cookie uint64) bool {
	ino := h.ino
	if name == ".." && h.in != nil {
		if f, err := l.r.fs.parent(ctx, rootCred, h.ino); err == nil {
			ino = f.in.ino
		}
	}
	if l.room < l.size(name) {
		return false
	}
	l.room -= l.size(name)
	l.n++
	e := fuse.DirEntry{Name: name, Ino: ino, Mode: typeDir, Off: cookie}
	if l.plus {
		return l.out.AddDirLookupEntry(e) != nil
	}
	return l.out.AddDirEntry(e)
}

// add adds entries as long as there is room, those with one cookie together. It
// reports whether all found room.
func (l *lister) add(dir *inode, list []*wire.DirEntry) bool {
	for i := 0; i < len(list); {
		j, need := i, 0
		for ; j < len(list) && list[j].Cookie == list[i].Cookie; j++ {
			need += l.size(list[j].Name)
		}
		if need > l.room {
			return false
		}
		l.room -= need
		for ; i < j; i++ {
			l.one(dir, list[i])
		}
	}
	return true
}

func (l *lister) one(dir *inode, e *wire.DirEntry) {
	if e.Ino == wire.ComputeIno && !l.r.listCompute {
		return
	}
	l.n++
	d := fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Type, Off: e.Cookie}
	if !l.plus {
		l.out.AddDirEntry(d)
		return
	}
	out := l.out.AddDirLookupEntry(d)
	if out == nil || isVirtual(e.Ino) || dir == nil {
		return // node id 0: the kernel learns the name only
	}
	f, ok := dir.remembered(e.Name)
	if ok && (f.in == nil || f.in.ino != e.Ino) {
		return
	}
	if !ok {
		f = found{dir: dir}
	}
	if f.in = l.r.fs.peek(e.Ino); f.in == nil {
		return
	}
	f.in.mu.Lock()
	f.in.at = place{dir.ino, e.Name}
	known := f.in.believed() || e.Inode != nil && f.in.rec != nil
	f.in.mu.Unlock()
	if known {
		l.r.entry(l.unique, &f, place{dir.ino, e.Name}, out)
	}
}
