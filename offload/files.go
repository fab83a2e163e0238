package offload

import (
	"context"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// Files is what offload needs of the filesystem. Paths are absolute in the
// namespace.
type Files interface {
	Stat(ctx context.Context, path string) (*wire.Inode, error)
	// ReadDir lists a whole directory; an entry may lack its inode.
	ReadDir(ctx context.Context, path string) ([]*wire.DirEntry, error)
	OpenInode(ctx context.Context, ino uint64) (File, error)
	Create(ctx context.Context, dir uint64, name string, mode uint32) (File, error)
	Mkdir(ctx context.Context, dir uint64, name string, mode uint32) (*wire.Inode, error)
	MkdirAs(ctx context.Context, cred *wire.Cred, dir uint64, name string, mode uint32) (*wire.Inode, error)
	ReadDirInode(ctx context.Context, ino uint64) ([]*wire.DirEntry, error)
	Remove(ctx context.Context, dir uint64, name string, rmdir bool) error
	// Chown gives an inode to a user, at once.
	Chown(ctx context.Context, ino uint64, uid, gid uint32) error
	// Where says how many bytes of an inode each chunk server holds.
	Where(ctx context.Context, ino uint64) (map[uint32]uint64, error)
	// Layout says which chunk servers hold which range of an inode, in order.
	Layout(ctx context.Context, ino uint64) ([]Piece, error)
	// Sync makes all that was written through this mount known to meta.
	Sync(ctx context.Context) error
}

// Piece is a range of a file that lies on one chunk server, or alike on
// several.
type Piece struct {
	Off, Len uint64
	Block    uint64   // 0: a hole, or kept in the inode
	Servers  []uint32 // none: it lies nowhere as it is
}

// exactReader is a File that can read without read-ahead: for parts of files,
// whose neighbours are of no use here.
type exactReader interface {
	ReadExactly(ctx context.Context, p []byte, off int64) (int, error)
}

// File is one open file.
type File interface {
	Inode() *wire.Inode
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	Flush(ctx context.Context) error // all writes are durable and committed
	Close() error
}

// Meta is what offload needs of the metadata servers: a *client.Client.
type Meta interface {
	Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error)
	Ask(ctx context.Context, q *wire.Query) (*wire.Answer, error)
	Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error)
}

// rootCred passes every check.
var rootCred = &wire.Cred{}

// S_IFMT and what it selects.
const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeReg  = 0o100000
	typeLink = 0o120000
)

func isDir(mode uint32) bool  { return mode&typeMask == typeDir }
func isFile(mode uint32) bool { return mode&typeMask == typeReg }
