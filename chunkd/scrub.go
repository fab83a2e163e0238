package chunkd

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Scrubbed says what a scrub has found.
type Scrubbed struct {
	Shards int64
	Bytes  int64
	Bad    []*wire.ShardID
}

// Scrub reads every shard from the disk, not faster than bytesPerSecond (0: as
// fast as it goes), and verifies it. Bad ones are noted for the next heartbeat.
func (s *Store) Scrub(ctx context.Context, bytesPerSecond int64) (Scrubbed, error) {
	limit := rate.NewLimiter(rate.Inf, 0)
	if bytesPerSecond > 0 {
		limit = rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond, block.MaxBlockSize)))
	}
	var out Scrubbed
	var after *shardID
	for {
		batch, err := s.batch(after, 64)
		if err != nil || len(batch) == 0 {
			return out, err
		}
		for _, id := range batch {
			e, err := s.verify(ctx, id)
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			switch {
			case wire.CodeOf(err) == wire.Shutdown:
				return out, err
			case errors.Is(err, wire.Corrupt):
				out.Bad = append(out.Bad, id.wire())
			}
			if e != nil {
				out.Shards++
				out.Bytes += int64(e.length)
				if err := limit.WaitN(ctx, e.length); err != nil {
					return out, err
				}
			}
		}
		after = &batch[len(batch)-1]
	}
}

// batch returns the next few shards, so that no iterator stays open for long.
func (s *Store) batch(after *shardID, n int) ([]shardID, error) {
	if err := s.enter(); err != nil {
		return nil, s.fail("scrub", shardID{}, err)
	}
	defer s.users.Done()
	var ids []shardID
	err := s.index.each(after, func(id shardID, _ *entry) bool {
		ids = append(ids, id)
		return len(ids) < n
	})
	if err != nil {
		return nil, s.fail("scrub", shardID{}, corruptIndex(err))
	}
	return ids, nil
}

// verify reads a shard from the disk and checks it against its root. It returns
// the entry, nil if the shard is not here. A shard that fails is read once more
// before it is called bad.
func (s *Store) verify(ctx context.Context, id shardID) (*entry, error) {
	if err := s.enter(); err != nil {
		return nil, s.fail("verify", id, err)
	}
	defer s.users.Done()
	e, err := s.index.get(id)
	if err != nil {
		return nil, s.fail("verify", id, corruptIndex(err))
	}
	if e == nil {
		return nil, s.fail("verify", id, errNotHere)
	}
	buf := getBuffer(e.leaves() + e.length)
	defer putBuffer(buf)
	for range 2 {
		s.uncache(e)
		err = s.check(id, e, *buf)
		if err == nil || ctx.Err() != nil || errors.Is(err, wire.NotFound) {
			break
		}
	}
	if errors.Is(err, wire.NotFound) {
		return nil, s.fail("verify", id, err)
	}
	if err != nil {
		return e, s.fail("verify", id, s.damaged(id, e, err))
	}
	return e, nil
}

// check reads and verifies the whole shard at e.
func (s *Store) check(id shardID, e *entry, buf []byte) error {
	err := s.files.read(e.at.segment, buf, e.at.off+recordHeaderSize)
	if now, ierr := s.index.get(id); ierr == nil && (now == nil || now.at != e.at) {
		return errNotHere
	}
	if err != nil {
		return wire.Errorf(wire.Corrupt, "", "", "it cannot be read: %w", err)
	}
	leaves, data := buf[:e.leaves()], buf[e.leaves():]
	if !block.VerifyRoot(e.length, leaves, e.root[:]) {
		return wire.Errorf(wire.Corrupt, "", "", "the digests do not match the root")
	}
	if !block.VerifyRange(leaves, 0, data) {
		return wire.Errorf(wire.Corrupt, "", "", "the bytes do not match their digests")
	}
	return nil
}

// uncache lets the kernel forget the pages of a shard, so that it is read from
// the disk. Pages not yet written stay.
func (s *Store) uncache(e *entry) {
	f, err := s.files.get(e.at.segment)
	if err != nil {
		return
	}
	file, real := f.(*os.File)
	if !real {
		return
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	// Advice: an error changes nothing.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Fadvise(int(fd), e.at.off, e.size(), unix.FADV_DONTNEED)
	})
}
