package fs

import (
	"context"

	"quernfs/internal/wire"
)

// Overlay adds synthetic entries to directories of the namespace, and is asked
// before the queue directory changes: /.compute is one. A synthetic inode has a
// number in wire.VirtualPartition, chosen by the overlay, the same for the same
// thing as long as the mount lives. Nothing synthetic is cached by the kernel.
type Overlay interface {
	// Lookup finds a synthetic entry of dir, which is wire.ComputeIno or a
	// synthetic directory. wire.NotFound: dir has no such synthetic entry (in
	// wire.ComputeIno the namespace's own entries are looked at next). An entry
	// whose number is not in the virtual partition is the inode of that number
	// in the namespace, shown here.
	Lookup(ctx context.Context, cred *wire.Cred, dir uint64, name string) (*wire.Attr, error)
	GetAttr(ctx context.Context, ino uint64) (*wire.Attr, error)
	// ReadDir lists all synthetic entries of dir, sorted by name.
	ReadDir(ctx context.Context, cred *wire.Cred, dir uint64) ([]*wire.DirEntry, error)
	ReadLink(ctx context.Context, ino uint64) (string, error)
	// Open opens a synthetic file; its content is taken at this moment, except
	// that a read may block until there is something to say (wait).
	Open(ctx context.Context, cred *wire.Cred, ino uint64, write bool) (OverlayFile, error)

	// Enqueue is asked after file ino has been written and before it becomes
	// (by rename), or once it is (written in place, closed), the entry name of
	// wire.QueueIno. Its error is the errno of the rename.
	Enqueue(ctx context.Context, cred *wire.Cred, name string, ino uint64) error
	// Dequeue is told that the entry name of wire.QueueIno has been removed.
	Dequeue(ctx context.Context, cred *wire.Cred, name string) error
}

// Rules is an Overlay with standing rules: files of wire.RulesIno, and of a directory
// of each user's own, that are about other files.
type Rules interface {
	// OwnRules says whether dir is where cred keeps rules of his own.
	OwnRules(ctx context.Context, cred *wire.Cred, dir uint64) bool
	// CheckRule is Enqueue for the entry name of such a directory. (What is written in
	// place in a user's own is seen by Standing.)
	CheckRule(ctx context.Context, cred *wire.Cred, dir uint64, name string, ino uint64) error
	// RuleGone is told that the entry name of such a directory has been removed.
	RuleGone(ctx context.Context, cred *wire.Cred, dir uint64, name string)
	// Standing says whether a rule is for a file that cred has written and closed,
	// or (moved) given a name. at tells its path, "" if that is not known, and its
	// size; it is called only if there are rules at all. nil: whether there are any.
	Standing(ctx context.Context, cred *wire.Cred, moved bool, at func() (path string, size uint64)) (bool, error)
}

// OverlayFile is one open of a synthetic file.
type OverlayFile interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error) // io.EOF at the end
	Write(ctx context.Context, p []byte) (int, error)
	Close() error
}
