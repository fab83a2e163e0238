package chunkd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quernfs/internal/wire"
)

// segment is one file of the log. Store.mu guards its fields but id, nonce, f
// and group, which do not change.
type segment struct {
	id    uint64
	nonce uint64
	f     file // open for writing; nil once nothing will be appended
	group *group

	tail      int64 // where the next record goes
	allocated int64 // space is allocated up to here
	sealed    bool  // takes no more records
	pending   int   // records that are being written
	live      usage
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x.seg", id) }

func (s *Store) segmentPath(id uint64) string {
	return filepath.Join(s.cfg.Dir, "segments", segmentName(id))
}

// listSegments returns the ids of the segment files in dir, ascending.
func listSegments(fs vfs.FS, dir string) ([]uint64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // by name, so by id
	var ids []uint64
	for _, n := range names {
		hex, ok := strings.CutSuffix(n, ".seg")
		id, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil || segmentName(id) != n {
			return nil, wire.Errorf(wire.Corrupt, "open chunk store", filepath.Join(dir, n), "this file does not belong here; move it away")
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// openFile opens a segment file for writing.
func (s *Store) openFile(id uint64, create bool) (file, error) {
	f, err := s.cfg.Disk.OpenSegment(s.segmentPath(id), create)
	if err != nil {
		return nil, err
	}
	if s.cfg.wrap != nil {
		return s.cfg.wrap(s.segmentPath(id), f), nil
	}
	return f, nil
}

// newSegment makes the segment that is appended to from now on. Its header
// becomes durable with the first record. Store.mu is held: a disk that does not
// answer here holds up the heartbeat too, as it should.
func (s *Store) newSegment() error {
	id := s.nextSegment
	var nonce [8]byte
	rand.Read(nonce[:])
	h := segmentHeader{id: id, nonce: le.Uint64(nonce[:]), created: s.cfg.Now().UnixNano()}
	f, err := s.openFile(id, true)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(h.encode(), 0)
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = syncDir(s.cfg.Disk.FS(), filepath.Join(s.cfg.Dir, "segments"))
	}
	if err != nil {
		f.Close()
		s.cfg.Disk.FS().Remove(s.segmentPath(id))
		return err
	}
	s.nextSegment++
	seg := &segment{id: id, nonce: h.nonce, f: f, group: &group{sync: f.Datasync}, tail: segmentHeaderSize}
	s.segments[id] = seg
	s.active = seg
	return nil
}

// reserve gives a record of size bytes its place at the end of the log, with
// space allocated for it. Store.mu is held.
func (s *Store) reserve(size int64) (*segment, int64, error) {
	if seg := s.active; seg != nil && (seg.tail+size > s.cfg.SegmentSize && seg.tail > segmentHeaderSize) {
		s.seal(seg)
	}
	if s.active == nil {
		if err := s.newSegment(); err != nil {
			return nil, 0, err
		}
	}
	seg := s.active
	if end := seg.tail + size; end > seg.allocated && !s.noAllocate {
		start := max(seg.allocated, seg.tail)
		upto := max(end, min(start+allocateStep, s.cfg.SegmentSize))
		err := seg.f.Allocate(start, upto-start)
		switch {
		case err == nil:
			seg.allocated = upto
		case outOfSpace(err):
			if err := seg.f.Allocate(start, end-start); err != nil {
				return nil, 0, err
			}
			seg.allocated = end
		default:
			// The file system cannot do it: writing allocates, only dearer.
			s.noAllocate = true
		}
	}
	off := seg.tail
	seg.tail += size
	seg.pending++
	s.pending[place{seg.id, off}] = struct{}{}
	return seg, off, nil
}

// seal ends appending to seg; its file is closed with its last pending record.
// Store.mu is held.
func (s *Store) seal(seg *segment) {
	seg.sealed = true
	if s.active == seg {
		s.active = nil
	}
	s.retire(seg)
}

// done says that the record at off of seg is in the index, or given up.
// Store.mu is held.
func (s *Store) done(seg *segment, off int64) {
	delete(s.pending, place{seg.id, off})
	seg.pending--
	s.retire(seg)
}

// retire closes the file of a sealed segment that nobody writes to, giving
// back what was allocated ahead.
func (s *Store) retire(seg *segment) {
	if !seg.sealed || seg.pending > 0 || seg.f == nil {
		return
	}
	if seg.group.failure() == nil {
		if err := trim(seg.f, seg.tail); err != nil {
			s.log.Warn("a segment keeps the space allocated ahead", "segment", seg.id, "error", err)
		}
	}
	if err := seg.f.Close(); err != nil {
		s.log.Warn("closing a segment", "segment", seg.id, "error", err)
	}
	seg.f = nil
}

// punch gives back the space of the record at p. It may fail: the space is
// lost until its segment is removed, nothing else.
func (s *Store) punch(p place, size int64) {
	f, err := s.openFile(p.segment, false)
	if err == nil {
		err = f.Punch(p.off, size)
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("punching a hole", "segment", p.segment, "offset", p.off, "error", err)
	}
}
