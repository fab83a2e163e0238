package chunkd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quernfs/internal/block"
)

// entry is what the index knows of a shard.
type entry struct {
	at     place // of the record
	length int
	root   [32]byte
}

func (e *entry) leaves() int { return block.LeafCount(e.length) * block.HashSize }

// size is what the shard takes on the disk.
func (e *entry) size() int64 { return recordSize(e.leaves(), e.length) }

// data is where the shard's bytes start in its segment.
func (e *entry) data() int64 { return e.at.off + recordHeaderSize + int64(e.leaves()) }

// usage is what lives in a segment.
type usage struct {
	shards int64
	bytes  int64
}

// checkpoint says that everything in the log before at is in the index, and
// which segment id comes next.
type checkpoint struct {
	at   place
	next uint64
}

// change is one change of the index: a shard put (entry) or deleted (nil).
type change struct {
	id    shardID
	entry *entry
}

// index is the Pebble database; its keys and values are drawn in doc.go.
type index struct {
	db *pebble.DB
}

func openIndex(fs vfs.FS, dir string, log *slog.Logger) (*index, error) {
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	opts := &pebble.Options{
		FS: fs,
		// The segments are the log: see doc.go.
		DisableWAL:                  true,
		Cache:                       cache,
		MemTableSize:                4 << 20,
		MemTableStopWritesThreshold: 8,
		MaxOpenFiles:                256,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      indexLogger{log},
	}
	for i := range opts.Levels {
		// Nearly every lookup is for a shard that is not there yet: a Put.
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	return &index{db}, nil
}

func shardKey(id shardID) []byte {
	b := make([]byte, 0, 13)
	b = append(b, 'b')
	b = binary.BigEndian.AppendUint64(b, id.block)
	return binary.BigEndian.AppendUint32(b, id.index)
}

func usageKey(segment uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{'s'}, segment)
}

var checkpointKey = []byte{'c'}

func (e *entry) encode() []byte {
	b := make([]byte, 0, 52)
	b = le.AppendUint64(b, e.at.segment)
	b = le.AppendUint64(b, uint64(e.at.off))
	b = le.AppendUint32(b, uint32(e.length))
	return append(b, e.root[:]...)
}

func decodeEntry(b []byte) (*entry, error) {
	if len(b) != 52 {
		return nil, fmt.Errorf("an entry of %d bytes", len(b))
	}
	e := &entry{
		at:     place{le.Uint64(b), int64(le.Uint64(b[8:]))},
		length: int(le.Uint32(b[16:])),
		root:   [32]byte(b[20:]),
	}
	if e.length < 1 || e.length > block.MaxBlockSize || e.at.off < segmentHeaderSize || e.at.off%align != 0 {
		return nil, errors.New("an entry that names no possible place")
	}
	return e, nil
}

// value copies the value of key, nil if there is none.
func (x *index) value(key []byte) ([]byte, error) {
	v, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

// get returns the entry of a shard, nil if there is none.
func (x *index) get(id shardID) (*entry, error) {
	v, closer, err := x.db.Get(shardKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return decodeEntry(v)
}

// each calls f with the shards above after, in order, until it returns false.
func (x *index) each(after *shardID, f func(shardID, *entry) bool) error {
	lower := []byte{'b'}
	if after != nil {
		lower = append(shardKey(*after), 0)
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: []byte{'b' + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != 13 {
			return fmt.Errorf("a key of %d bytes", len(k))
		}
		e, err := decodeEntry(it.Value())
		if err != nil {
			return err
		}
		if !f(shardID{binary.BigEndian.Uint64(k[1:]), binary.BigEndian.Uint32(k[9:])}, e) {
			break
		}
	}
	return it.Error()
}

// usages returns what lives in each segment.
func (x *index) usages() (map[uint64]usage, error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'s'}, UpperBound: []byte{'s' + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	out := map[uint64]usage{}
	for ok := it.First(); ok; ok = it.Next() {
		k, v := it.Key(), it.Value()
		if len(k) != 9 || len(v) != 16 {
			return nil, errors.New("a malformed count of a segment")
		}
		out[binary.BigEndian.Uint64(k[1:])] = usage{int64(le.Uint64(v)), int64(le.Uint64(v[8:]))}
	}
	return out, it.Error()
}

// checkpoint returns the newest checkpoint that is in the index; the zero one
// means that the whole log is to be replayed.
func (x *index) checkpoint() (checkpoint, error) {
	v, err := x.value(checkpointKey)
	if err != nil || v == nil {
		return checkpoint{}, err
	}
	if len(v) != 28 || le.Uint32(v) != formatVersion {
		return checkpoint{}, errors.New("a malformed checkpoint")
	}
	return checkpoint{at: place{le.Uint64(v[4:]), int64(le.Uint64(v[12:]))}, next: le.Uint64(v[20:])}, nil
}

func (c *checkpoint) encode() []byte {
	b := make([]byte, 0, 28)
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint64(b, c.at.segment)
	b = le.AppendUint64(b, uint64(c.at.off))
	return le.AppendUint64(b, c.next)
}

// apply writes shards and usages in one batch.
func (x *index) apply(changes []change, used map[uint64]usage) error {
	b := x.db.NewBatch()
	defer b.Close()
	for _, c := range changes {
		var err error
		if c.entry == nil {
			err = b.Delete(shardKey(c.id), nil)
		} else {
			err = b.Set(shardKey(c.id), c.entry.encode(), nil)
		}
		if err != nil {
			return err
		}
	}
	for segment, u := range used {
		v := le.AppendUint64(le.AppendUint64(nil, uint64(u.shards)), uint64(u.bytes))
		if err := b.Set(usageKey(segment), v, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

// mark writes a checkpoint; flush waits until it is durable.
func (x *index) mark(c checkpoint, flush bool) error {
	if err := x.db.Set(checkpointKey, c.encode(), pebble.NoSync); err != nil {
		return err
	}
	if flush {
		return x.db.Flush()
	}
	_, err := x.db.AsyncFlush()
	return err
}

// forget removes the counts of segments that are gone.
func (x *index) forget(segments []uint64) error {
	b := x.db.NewBatch()
	defer b.Close()
	for _, s := range segments {
		if err := b.Delete(usageKey(s), nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

func (x *index) close() error { return x.db.Close() }

// indexLogger passes on what Pebble says went wrong.
type indexLogger struct{ log *slog.Logger }

func (l indexLogger) Infof(string, ...any) {}

func (l indexLogger) Errorf(format string, args ...any) {
	l.log.Error("index of the chunk store", "error", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble could not write its manifest and its state in
// memory is not to be trusted. Nothing acknowledged depends on it.
func (l indexLogger) Fatalf(format string, args ...any) {
	panic("index of the chunk store: " + fmt.Sprintf(format, args...))
}
