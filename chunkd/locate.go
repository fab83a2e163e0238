package chunkd

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Location says where a shard lies: a reader with the segment's file can read
// and verify it by itself.
type Location struct {
	Segment uint64
	Off     int64 // of the shard's first byte
	Length  int
	Root    []byte
	Leaves  []byte // the digests, checked against Root
}

// Locate finds a shard.
//
// Codes: NotFound, Corrupt (its digests are damaged, or its segment is gone).
func (s *Store) Locate(ctx context.Context, blockID uint64, index uint32) (*Location, error) {
	id := shardID{blockID, index}
	if err := s.enter(); err != nil {
		return nil, s.fail("locate", id, err)
	}
	defer s.users.Done()
	e, leaves, err := s.locate(id)
	if err != nil {
		return nil, s.fail("locate", id, err)
	}
	return &Location{Segment: e.at.segment, Off: e.data(), Length: e.length, Root: e.root[:], Leaves: leaves}, nil
}

var errNotHere = wire.Errorf(wire.NotFound, "", "", "it is not stored here")

// locate returns the entry and the verified leaf digests of a shard.
func (s *Store) locate(id shardID) (*entry, []byte, error) {
	e, err := s.index.get(id)
	if err != nil {
		return nil, nil, corruptIndex(err)
	}
	if e == nil {
		return nil, nil, errNotHere
	}
	leaves := make([]byte, e.leaves())
	if err := s.readSegment(id, e, leaves, e.at.off+recordHeaderSize); err != nil {
		return nil, nil, err
	}
	if !block.VerifyRoot(e.length, leaves, e.root[:]) {
		return nil, nil, s.damaged(id, e, wire.Errorf(wire.Corrupt, "", "", "the digests do not match the root"))
	}
	return e, leaves, nil
}

// ReadAt reads len(p) bytes of a shard from off on, unverified: whoever trusts
// the root verifies. It reads less at the shard's end, with io.EOF.
func (s *Store) ReadAt(ctx context.Context, blockID uint64, index uint32, p []byte, off int64) (int, error) {
	id := shardID{blockID, index}
	if err := s.enter(); err != nil {
		return 0, s.fail("read", id, err)
	}
	defer s.users.Done()
	e, err := s.index.get(id)
	if err != nil {
		return 0, s.fail("read", id, corruptIndex(err))
	}
	if e == nil {
		return 0, s.fail("read", id, errNotHere)
	}
	if off < 0 || off >= int64(e.length) {
		return 0, io.EOF
	}
	short := int64(len(p)) > int64(e.length)-off
	if short {
		p = p[:int64(e.length)-off]
	}
	if err := s.read(id, e, p, off); err != nil {
		return 0, s.fail("read", id, err)
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// read reads bytes of the shard at e.
func (s *Store) read(id shardID, e *entry, p []byte, off int64) error {
	if err := s.readSegment(id, e, p, e.data()+off); err != nil {
		return err
	}
	s.counters.reads.Add(1)
	s.counters.readBytes.Add(uint64(len(p)))
	return nil
}

// readSegment reads from the segment of e at off. A shard that was deleted
// meanwhile (its bytes are a hole by now) is NotFound, one that cannot be read is
// Corrupt and noted as bad.
func (s *Store) readSegment(id shardID, e *entry, p []byte, off int64) error {
	err := s.files.read(e.at.segment, p, off)
	now, ierr := s.index.get(id)
	switch {
	case ierr != nil:
		return corruptIndex(ierr)
	case now == nil || now.at != e.at:
		return errNotHere
	case err != nil:
		return s.damaged(id, e, wire.Errorf(wire.Corrupt, "", "", "it cannot be read: %w", err))
	}
	return nil
}

// damaged notes that the shard at e is bad, if it still is what is stored, and
// returns err.
func (s *Store) damaged(id shardID, e *entry, err error) error {
	if now, ierr := s.index.get(id); ierr == nil && (now == nil || now.at != e.at) {
		return errNotHere
	}
	if s.work.bad(id) {
		s.counters.badShards.Add(1)
		s.log.Error("a shard is damaged", "shard", id.String(), "segment", e.at.segment, "offset", e.at.off, "error", err)
	}
	return err
}

// SegmentFile opens a segment for reading; the caller closes it. Only files of
// the operating system can be had so.
func (s *Store) SegmentFile(segment uint64) (*os.File, error) {
	if _, real := s.cfg.Disk.(osDisk); !real {
		return nil, wire.Errorf(wire.Unsupported, "open segment", segmentName(segment), "it is no file of this system")
	}
	f, err := os.Open(s.segmentPath(segment))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wire.Errorf(wire.NotFound, "open segment", segmentName(segment), "there is no such segment")
	}
	if err != nil {
		return nil, &wire.Error{Code: wire.Unavailable, Op: "open segment", Object: segmentName(segment), Err: err}
	}
	return f, nil
}

func (s *Store) openForReading(segment uint64) (segmentReader, error) {
	if _, real := s.cfg.Disk.(osDisk); real {
		return os.Open(s.segmentPath(segment))
	}
	return s.cfg.Disk.OpenSegment(s.segmentPath(segment), false)
}

// List returns up to limit shards above after (nil: from the start) in order.
func (s *Store) List(after *wire.ShardID, limit int) ([]*wire.ShardID, error) {
	if err := s.enter(); err != nil {
		return nil, s.fail("list", shardID{}, err)
	}
	defer s.users.Done()
	var from *shardID
	if after != nil {
		from = &shardID{after.GetBlock(), after.GetIndex()}
	}
	var out []*wire.ShardID
	err := s.index.each(from, func(id shardID, _ *entry) bool {
		if len(out) < limit {
			out = append(out, id.wire())
		}
		return len(out) < limit
	})
	if err != nil {
		return nil, s.fail("list", shardID{}, corruptIndex(err))
	}
	return out, nil
}

func (id shardID) wire() *wire.ShardID { return &wire.ShardID{Block: id.block, Index: id.index} }
