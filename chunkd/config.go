package chunkd

import (
	"log/slog"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Config says where a Store lives and how it behaves. Dir, Node and Key must be
// given; zero for the others means the default.
type Config struct {
	Disk Disk // nil: the operating system's
	Dir  string
	Node uint32 // id that meta gave this server
	Key  []byte // the cluster key

	SegmentSize int64 // a segment is closed when it would grow beyond; default 1 GiB
	Reserve     int64 // bytes of disk kept free; default 128 MiB, negative: none
	Capacity    int64 // bytes the shards of this server may take; 0: the disk

	// HeartbeatEvery is the pace of Run's heartbeats (default 1 s), ScrubEvery
	// the time from the start of one scrub to that of the next (default a day,
	// negative: never), ScrubRate its bytes a second (default 16 MiB).
	HeartbeatEvery time.Duration
	ScrubEvery     time.Duration
	ScrubRate      int64
	// InventoryEvery is the time from the start of one round of telling the
	// leader what is held here to that of the next; the first is at the start.
	// Default an hour, negative: never.
	InventoryEvery time.Duration

	Now func() time.Time
	Log *slog.Logger

	wrap func(path string, f file) file // between segments and the disk, for tests
}

const (
	minSegmentSize = 1 << 20
	allocateStep   = 16 << 20 // space is allocated ahead in such steps

	// A checkpoint is taken after so much has been written: it bounds what
	// opening has to replay.
	checkpointBytes   = 64 << 20
	checkpointRecords = 8192
)

func (c Config) resolved() (Config, error) {
	switch {
	case c.Dir == "":
		return c, wire.Errorf(wire.Invalid, "open chunk store", "", "no directory given")
	case c.Node == 0:
		return c, wire.Errorf(wire.Invalid, "open chunk store", c.Dir, "no node id given")
	case len(c.Key) != block.KeySize:
		return c, wire.Errorf(wire.Invalid, "open chunk store", c.Dir, "the cluster key has %d bytes, not %d", len(c.Key), block.KeySize)
	}
	setDefault(&c.SegmentSize, 1<<30)
	c.SegmentSize = max(c.SegmentSize, minSegmentSize)
	setDefault(&c.Reserve, 128<<20)
	c.Reserve = max(c.Reserve, 0)
	setDefault(&c.HeartbeatEvery, time.Second)
	setDefault(&c.ScrubEvery, 24*time.Hour)
	setDefault(&c.ScrubRate, 16<<20)
	setDefault(&c.InventoryEvery, time.Hour)
	if c.Disk == nil {
		c.Disk = osDisk{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
