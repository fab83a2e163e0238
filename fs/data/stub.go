package data

import (
	"context"

	"quernfs/internal/wire"
)

type Path struct{}
type File struct{}

// New returns a data path over m and b.
func New(cfg Config, m Meta, b Blocks) *Path { return nil }

// File returns the one File of this inode number, made on first use. The inode is used only then; see Reset.
func (p *Path) File(inode *wire.Inode) *File { return nil }

// Lookup returns the File of ino if there is one.
func (p *Path) Lookup(ino uint64) *File { return nil }

// Forget ends the File of ino, once it is clean.
func (p *Path) Forget(ino uint64) {}

// Flush flushes all files.
func (p *Path) Flush(ctx context.Context) error { return nil }

// Abandon drops what is dirty in every file (the session was ended): each
// affected file reports it once, at its next Flush. It returns the bytes lost.
func (p *Path) Abandon() int64 { return 0 }

// Close flushes and ends all goroutines.
func (p *Path) Close(ctx context.Context) error { return nil }

// Stats returns the counters.
func (p *Path) Stats() Stats { return Stats{} }

type Stats struct{}

// Reset: the inode as meta has it now. Forgets extents, keeps dirty data.
func (f *File) Reset(inode *wire.Inode) {}

func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error)  { return 0, nil }
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) { return 0, nil }
func (f *File) Size() int64                                                   { return 0 }
func (f *File) Dirty() bool                                                   { return false }

// SetAttr merges deferred attributes; they go with the next commit.
func (f *File) SetAttr(a *wire.SetAttr) {}

// Flush makes all earlier writes and deferred attributes durable and committed.
func (f *File) Flush(ctx context.Context) error { return nil }

// Discard drops dirty data at once, without waiting: the file is deleted.
func (f *File) Discard() {}

// Truncate changes the size. set sends the command to meta and returns the
// inode it got back. Nothing is flushed: commits of this file pause around
// set, and only when set succeeds is dirty data beyond size dropped and the
// inode adopted (as by Reset). For O_TRUNC, ftruncate, shrinking and growing.
func (f *File) Truncate(ctx context.Context, size int64, set func(context.Context) (*wire.Inode, error)) error {
	return nil
}

// Punch is Truncate's sibling for a range that cmd makes a hole or zeroes
// (PUNCH_HOLE, ZERO_RANGE). For other fallocate modes pass n = 0.
func (f *File) Punch(ctx context.Context, off, n int64, cmd func(context.Context) (*wire.Inode, error)) error {
	return nil
}

// Mutate flushes the file, pauses its commits, runs cmd and adopts the inode
// it returns: for Clone and whatever else changes content in meta.
func (f *File) Mutate(ctx context.Context, cmd func(context.Context) (*wire.Inode, error)) error {
	return nil
}

// MakeExtents commits inline content as extents (Clone answered NeedExtents).
func (f *File) MakeExtents(ctx context.Context) error { return nil }

// Seek is SEEK_DATA, with hole SEEK_HOLE. syscall.ENXIO past the end.
func (f *File) Seek(ctx context.Context, off int64, hole bool) (int64, error) { return 0, nil }
