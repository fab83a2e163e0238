package data

import (
	"context"
	"log/slog"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Meta is what the data path asks of the metadata service. Every call is
// bounded in time by the implementation or its context.
type Meta interface {
	Allocate(ctx context.Context, q *wire.Allocate) (*wire.AllocateAnswer, error)
	Extents(ctx context.Context, q *wire.GetExtents) (*wire.ExtentsAnswer, error)
	Commit(ctx context.Context, c *wire.Commit) (*wire.Result, error)
}

// Blocks stores and reads blocks: *chunkd.Client. Neither touches the caller's
// slice after it has returned.
type Blocks interface {
	WriteBlock(ctx context.Context, p block.Policy, t *wire.Ticket, spares []uint32, data []byte) (*wire.Block, error)
	ReadBlock(ctx context.Context, b *wire.Block, p []byte, off int) error
}

// Config is useful when zero.
type Config struct {
	DirtyLimit int64         // bytes of written data held in memory, in flight included; 0 = 256 MiB
	CacheBytes int64         // bytes of read data held in memory; 0 = 256 MiB
	FlushAfter time.Duration // dirty data is on its way after this long; 0 = 1 s
	Uploads    int           // blocks written at once; 0 = 4
	ReadAhead  int           // blocks fetched ahead of a sequential reader; 0 = 8
	// FlushTimeout bounds Flush when its context does not; 0 = 28 s, so that
	// an fsync answers within 30 s.
	FlushTimeout time.Duration
	// Committed, if set, is told the inode as it is after each commit, on the
	// committer's goroutine and before a Flush that waited for it returns. It
	// must not call into this package.
	Committed func(*wire.Inode)
	Log       *slog.Logger
}
