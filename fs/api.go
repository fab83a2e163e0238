package fs

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	"quernfs/fs/data"
	"quernfs/internal/wire"
)

// File is an open file of the API without a kernel. Reads and writes may be
// concurrent. Close does not flush: data stays here under the write lease, and
// is stored soon.
type File interface {
	// Inode is the inode as it now is.
	Inode() *wire.Inode
	// ReadAt is io.ReaderAt with a context: io.EOF at the end.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// ReadExactly is ReadAt for who knows what he wants: nothing is read ahead.
	ReadExactly(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	Size() int64
	Truncate(ctx context.Context, size int64) error
	// Flush makes what was written durable.
	Flush(ctx context.Context) error
	Close() error
}

// resolve walks a path from the root. Symbolic links are not followed.
func (fs *FS) resolve(ctx context.Context, path string) (*inode, error) {
	ino := wire.RootIno
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		f, err := fs.lookup(ctx, rootCred, ino, name)
		if err != nil {
			return nil, err
		}
		if f.in == nil {
			return nil, wire.Errorf(wire.NotFound, "look up", path, "no such file or directory")
		}
		ino = f.in.ino
	}
	in := fs.inode(ino)
	return in, fs.know(ctx, rootCred, in)
}

// snapshot is the inode as this session shows it. in.rec is known.
func (in *inode) snapshot() *wire.Inode {
	in.mu.Lock()
	defer in.mu.Unlock()
	rec := proto.CloneOf(in.rec)
	a, _ := in.weighed()
	rec.Attr.Mode, rec.Attr.Uid, rec.Attr.Gid, rec.Attr.Nlink = a.mode, a.uid, a.gid, a.nlink
	rec.Attr.Size, rec.Attr.Allocated = a.size, a.allocated
	rec.Attr.AtimeNs, rec.Attr.MtimeNs, rec.Attr.CtimeNs = a.atimeNs, a.mtimeNs, a.ctimeNs
	return rec
}

// Stat returns the inode at a path.
func (fs *FS) Stat(ctx context.Context, path string) (*wire.Inode, error) {
	in, err := fs.resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	return in.snapshot(), nil
}

// StatInode returns an inode by its number.
func (fs *FS) StatInode(ctx context.Context, ino uint64) (*wire.Inode, error) {
	in := fs.inode(ino)
	if err := fs.know(ctx, rootCred, in); err != nil {
		return nil, err
	}
	return in.snapshot(), nil
}

// ReadDir lists a directory, without "." and "..", in the order of cookies.
func (fs *FS) ReadDir(ctx context.Context, path string) ([]*wire.DirEntry, error) {
	in, err := fs.resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	return fs.readAll(ctx, in)
}

// ReadDirInode is ReadDir by inode number.
func (fs *FS) ReadDirInode(ctx context.Context, ino uint64) ([]*wire.DirEntry, error) {
	return fs.readAll(ctx, fs.inode(ino))
}

func (fs *FS) readAll(ctx context.Context, in *inode) ([]*wire.DirEntry, error) {
	s := &dirStream{in: in}
	var all []*wire.DirEntry
	from := uint64(0)
	for {
		list, err := s.after(ctx, rootCred, from, false)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return all, nil
		}
		all = append(all, list...)
		from = list[len(list)-1].Cookie
	}
}

// apiFile is an open file of the API.
type apiFile struct {
	fs *FS
	in *inode
}

// OpenFile opens the regular file at a path.
func (fs *FS) OpenFile(ctx context.Context, path string) (File, error) {
	in, err := fs.resolve(ctx, path)
	if err != nil {
		return nil, err
	}
	return fs.OpenInode(ctx, in.ino)
}

// OpenInode opens a regular file by its inode number.
func (fs *FS) OpenInode(ctx context.Context, ino uint64) (File, error) {
	in := fs.inode(ino)
	if err := fs.know(ctx, rootCred, in); err != nil {
		return nil, err
	}
	if !in.regular() {
		return nil, wire.Errorf(wire.Invalid, "open", "", "not a regular file")
	}
	if err := fs.opened(ctx, in); err != nil {
		return nil, err
	}
	return &apiFile{fs: fs, in: in}, nil
}

// Create makes a regular file, or opens and empties the one that is there.
func (fs *FS) Create(ctx context.Context, dir uint64, name string, mode uint32) (File, error) {
	for {
		f, created, err := fs.createOpen(ctx, rootCred, &wire.Create{Parent: dir, Name: name, Mode: typeReg | mode&permMask})
		if err != nil {
			return nil, err
		}
		fs.tellOwnKernel(dir, name)
		err = fs.keep(ctx, f.in)
		if err == nil && !created {
			if !f.in.regular() {
				err = wire.Errorf(wire.Invalid, "create", "", "not a regular file")
			} else {
				err = fs.truncate(ctx, f.in, rootCred, &wire.SetAttr{Ino: f.in.ino, Mask: wire.SetSize, Handle: true})
			}
			if err != nil {
				fs.closed(f.in)
			}
		}
		switch {
		case err == nil:
			return &apiFile{fs: fs, in: f.in}, nil
		case created || !errors.Is(err, wire.NotFound) || ctx.Err() != nil:
			return nil, err
		}
		// It was removed before it could be opened: then it can be made.
	}
}

// CreateNew makes a regular file. It fails with wire.Exists where there is an
// entry of this name.
func (fs *FS) CreateNew(ctx context.Context, dir uint64, name string, mode uint32) (*wire.Inode, error) {
	f, _, err := fs.create(ctx, rootCred, &wire.Create{Parent: dir, Name: name, Mode: typeReg | mode&permMask, Exclusive: true})
	if err != nil {
		return nil, err
	}
	fs.tellOwnKernel(dir, name)
	return f.in.snapshot(), nil
}

// Lookup returns the inode number of an entry.
func (fs *FS) Lookup(ctx context.Context, dir uint64, name string) (ino uint64, err error) {
	f, err := fs.lookup(ctx, rootCred, dir, name)
	if err != nil {
		return 0, err
	}
	if f.in == nil {
		return 0, wire.Errorf(wire.NotFound, "look up", name, "no such file or directory")
	}
	return f.in.ino, nil
}

// Link gives an inode one more name.
func (fs *FS) Link(ctx context.Context, ino, dir uint64, name string) error {
	_, err := fs.link(ctx, rootCred, ino, dir, name)
	if err == nil {
		fs.tellOwnKernel(dir, name)
	}
	return err
}

// Flock takes, or with wire.Unlock gives up, a lock on a whole file, as flock(2)
// without waiting does: a conflict is wire.Again. typ is as in wire.Lock. Locks
// end with Flock alone, not with a file's Close, and with the session.
func (fs *FS) Flock(ctx context.Context, ino, owner uint64, typ uint32) error {
	return fs.lock(ctx, fs.inode(ino), fileLock{owner: owner, flock: true, typ: typ, end: ^uint64(0)}, false)
}

// Leases lists what this session may believe, by inode number: nothing while
// its lease has lapsed.
func (fs *FS) Leases() map[uint64]wire.Mode {
	all := map[uint64]wire.Mode{}
	if fs.lapsed.Load() {
		return all
	}
	for _, in := range fs.all() {
		in.mu.Lock()
		if in.usable(wire.Mode_READ) {
			all[in.ino] = in.held.mode
		}
		in.mu.Unlock()
	}
	return all
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(ctx context.Context, dir uint64, name string, mode uint32) (*wire.Inode, error) {
	return fs.MkdirAs(ctx, rootCred, dir, name, mode)
}

// MkdirAs is Mkdir in the name of cred: with its rights, and as its directory.
func (fs *FS) MkdirAs(ctx context.Context, cred *wire.Cred, dir uint64, name string, mode uint32) (*wire.Inode, error) {
	f, _, err := fs.create(ctx, cred, &wire.Create{Parent: dir, Name: name, Mode: typeDir | mode&permMask, Exclusive: true})
	if err != nil {
		return nil, err
	}
	fs.tellOwnKernel(dir, name)
	return f.in.snapshot(), nil
}

// Chown gives an inode to a user: at once, not when the write lease goes.
func (fs *FS) Chown(ctx context.Context, ino uint64, uid, gid uint32) error {
	in := fs.inode(ino)
	if err := fs.settle(ctx, in); err != nil {
		return err
	}
	_, err := fs.doInode(ctx, in, rootCred, &wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{
		Ino: ino, Mask: wire.SetUID | wire.SetGID, Uid: uid, Gid: gid,
	}}})
	return err
}

// Remove removes an entry; rmdir says that it is a directory.
func (fs *FS) Remove(ctx context.Context, dir uint64, name string, rmdir bool) error {
	err := fs.unlink(ctx, rootCred, dir, name, rmdir)
	if err == nil {
		fs.tellOwnKernel(dir, name)
	}
	return err
}

// Rename moves an entry, replacing what has the new name.
func (fs *FS) Rename(ctx context.Context, dir uint64, name string, newDir uint64, newName string) error {
	return fs.RenameAs(ctx, dir, name, newDir, newName, 0)
}

// RenameAs is Rename with the flags of renameat2(2).
func (fs *FS) RenameAs(ctx context.Context, dir uint64, name string, newDir uint64, newName string, flags uint32) error {
	err := fs.rename(ctx, rootCred, &wire.Rename{Parent: dir, Name: name, NewParent: newDir, NewName: newName, Flags: flags})
	if err == nil {
		fs.tellOwnKernel(dir, name)
		fs.tellOwnKernel(newDir, newName)
	}
	return err
}

// tellOwnKernel: meta does not recall what the session itself changes, so the
// session's own mount has to be told by hand.
func (fs *FS) tellOwnKernel(dir uint64, name string) {
	k := fs.kernel()
	if k == nil {
		return
	}
	in := fs.inode(dir)
	in.mu.Lock()
	in.naming++
	in.mu.Unlock()
	k.forgetAttrs(dir)
	fs.forgetEntries(k, in, in.showing([]string{name}))
	in.mu.Lock()
	in.naming--
	in.mu.Unlock()
}

func (f *apiFile) Inode() *wire.Inode { return f.in.snapshot() }

func (f *apiFile) Size() int64 {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return int64(f.in.attrs().size)
}

func (f *apiFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.fs.read(ctx, f.in, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *apiFile) ReadExactly(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.fs.readBy(ctx, f.in, p, off, false, (*data.File).ReadExactly)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *apiFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.fs.write(ctx, f.in, p, writing{off: off})
	if k := f.fs.kernel(); k != nil && n > 0 {
		k.forgetAttrs(f.in.ino)
	}
	return n, err
}

func (f *apiFile) Truncate(ctx context.Context, size int64) error {
	err := f.fs.truncate(ctx, f.in, rootCred, &wire.SetAttr{Ino: f.in.ino, Mask: wire.SetSize, Size: uint64(size), Handle: true})
	if k := f.fs.kernel(); k != nil && err == nil {
		k.forgetAttrs(f.in.ino)
	}
	return err
}

func (f *apiFile) Flush(ctx context.Context) error { return f.fs.flush(ctx, f.in) }

func (f *apiFile) Close() error {
	f.fs.closed(f.in)
	return nil
}
