package chunkd

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quernfs/internal/wire"
)

const opOpen = "open chunk store"

// Open opens the store in cfg.Dir, making it if the directory is missing or
// empty, and recovers from a crash (see doc.go).
//
// Codes: Busy (another process has it open), Corrupt (the error names the file),
// Invalid (cfg, or the directory is another server's).
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	segments := filepath.Join(cfg.Dir, "segments")
	for _, dir := range []string{cfg.Dir, segments} {
		if err := makeDir(cfg.Disk.FS(), dir); err != nil {
			return nil, openError(cfg.Dir, err)
		}
	}
	lock, err := lockDir(cfg.Disk, cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, lock: lock, boot: rand.Uint64(),
		files:    newFileCache(),
		work:     newWork(),
		segments: map[uint64]*segment{},
		pending:  map[place]struct{}{},
		flights:  map[shardID]*flight{},
	}
	s.files.open = s.openForReading
	if err := s.open(segments); err != nil {
		if s.index != nil {
			s.index.close()
		}
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(segments string) error {
	if err := checkIdentity(s.cfg); err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.Dir, "index")
	if err := makeDir(s.cfg.Disk.FS(), dir); err != nil {
		return openError(dir, err)
	}
	x, err := openIndex(s.cfg.Disk.FS(), dir, s.log)
	if err != nil {
		return wire.Errorf(wire.Corrupt, opOpen, dir, "the index cannot be opened; moved away, it is built anew from the segments: %w", err)
	}
	s.index = x
	c, err := x.checkpoint()
	if err != nil {
		return wire.Errorf(wire.Corrupt, opOpen, dir, "%w; moved away, the index is built anew from the segments", err)
	}
	used, err := x.usages()
	if err != nil {
		return wire.Errorf(wire.Corrupt, opOpen, dir, "%w; moved away, the index is built anew from the segments", err)
	}
	ids, err := listSegments(s.cfg.Disk.FS(), segments)
	if err != nil {
		return err
	}
	for id, u := range used {
		if _, here := slices.BinarySearch(ids, id); !here && u.shards > 0 {
			s.log.Error("a segment is missing: its shards will be reported lost", "file", s.segmentPath(id), "shards", u.shards)
			s.segments[id] = &segment{id: id, live: u, sealed: true}
		}
		s.live.shards += u.shards
		s.live.bytes += u.bytes
	}
	s.nextSegment = max(c.next, 1)
	for _, id := range ids {
		s.nextSegment = max(s.nextSegment, id+1)
		s.segments[id] = &segment{id: id, live: used[id], sealed: true}
	}
	replayed := 0
	for _, id := range ids {
		if id < c.at.segment {
			continue
		}
		from := int64(segmentHeaderSize)
		if id == c.at.segment {
			from = max(from, c.at.off)
		}
		n, err := s.replay(id, from, id == ids[len(ids)-1])
		if err != nil {
			return err
		}
		replayed += n
	}
	if replayed > 0 {
		s.log.Info("the index has caught up with the log", "dir", s.cfg.Dir, "records", replayed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkpoint(replayed > 0 || c.next == 0); err != nil {
		return corruptIndex(err)
	}
	return nil
}

// replay brings the records of a segment from offset from on into the index,
// makes them durable, and, for the last segment, opens it for appending. It
// returns how many records it applied.
func (s *Store) replay(id uint64, from int64, last bool) (int, error) {
	path := s.segmentPath(id)
	f, err := s.cfg.Disk.OpenSegment(path, false)
	if err != nil {
		return 0, openError(path, err)
	}
	defer f.Close()
	head := make([]byte, segmentHeaderSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, openError(path, err)
	}
	h, blank, err := decodeSegmentHeader(head[:n], id)
	if blank && s.segments[id].live.shards == 0 {
		// A crash cut its making short; nothing in it was acknowledged.
		delete(s.segments, id)
		if err := s.cfg.Disk.FS().Remove(path); err != nil {
			return 0, openError(path, err)
		}
		return 0, nil
	}
	if blank {
		err = errors.New("the header is gone")
	}
	if err != nil {
		return 0, wire.Errorf(wire.Corrupt, opOpen, path, "%w; moved away, its shards are made anew from the other servers", err)
	}
	size, err := f.Size()
	if err != nil {
		return 0, openError(path, err)
	}
	applied := 0
	err = scan(f, place{id, from}, h.nonce, size, func(r *record, body []byte) error {
		applied++
		return s.replayRecord(r, body)
	})
	if err != nil {
		return 0, openError(path, err)
	}
	if size > from {
		if err := f.Datasync(); err != nil {
			return 0, openError(path, err)
		}
	}
	if !last {
		return applied, nil
	}
	// Never before the checkpoint: a record put there would not be replayed.
	tail := max((size+align-1)/align*align, from)
	if tail >= s.cfg.SegmentSize {
		return applied, nil
	}
	w, err := s.openFile(id, false)
	if err != nil {
		return 0, openError(path, err)
	}
	seg := s.segments[id]
	seg.nonce, seg.f, seg.group = h.nonce, w, &group{sync: w.Datasync}
	seg.tail, seg.allocated, seg.sealed = tail, 0, false
	s.active = seg
	return applied, nil
}

// replayRecord applies one record as Put and Delete did. Records come in the
// order of the log, so that the last one about a shard wins, also over an index
// that is ahead of its checkpoint.
func (s *Store) replayRecord(r *record, body []byte) error {
	var changes []change
	var old []*entry
	ids := []shardID{r.id}
	var put *entry
	if r.tombstone {
		ids = decodeTombstones(body)
	} else {
		put = &entry{at: r.at, length: int(r.length), root: r.root}
	}
	seen := map[shardID]bool{}
	for _, id := range ids {
		e, err := s.index.get(id)
		if err != nil {
			return corruptIndex(err)
		}
		if seen[id] || (put == nil && e == nil) || (put != nil && e != nil && e.at == put.at) {
			continue
		}
		seen[id] = true
		changes, old = append(changes, change{id, put}), append(old, e)
	}
	if len(changes) == 0 {
		return nil
	}
	return s.change(changes, old)
}

// scan reads the records of a segment file from at to size and calls f with the
// complete ones and their bodies (digests and bytes, or the list of ids). Where
// there is no complete record it looks at the next multiple of 4 KiB: a crash
// may have left reserved places empty before complete records.
func scan(f io.ReaderAt, at place, nonce uint64, size int64, found func(*record, []byte) error) error {
	head := make([]byte, recordHeaderSize)
	var body []byte
	for at.off+recordHeaderSize <= size {
		if _, err := f.ReadAt(head, at.off); err != nil {
			return err
		}
		r, err := decodeRecord(head, at, nonce)
		if err != nil {
			at.off += align
			continue
		}
		n := int(r.leaves) + int(r.length)
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		switch _, err := f.ReadAt(body, at.off+recordHeaderSize); {
		case err == io.EOF || (err == nil && bodyCRC(body) != r.bodyCRC):
			// Torn. Its header is true, so the place is all its own.
		case err != nil:
			return err
		default:
			if err := found(r, body); err != nil {
				return err
			}
		}
		at.off += r.size()
	}
	return nil
}

// lockDir keeps other processes away until the file is closed.
func lockDir(disk Disk, dir string) (io.Closer, error) {
	path := filepath.Join(dir, "lock")
	l, err := disk.Lock(path)
	switch {
	case errors.Is(err, ErrLocked):
		return nil, wire.Errorf(wire.Busy, opOpen, dir, "another process is using this directory; stop it first")
	case err != nil:
		return nil, openError(path, err)
	}
	return l, nil
}

// checkIdentity makes sure that the directory is this server's own: proofs
// name the node.
func checkIdentity(cfg Config) error {
	path := filepath.Join(cfg.Dir, "store")
	b, err := readFile(cfg.Disk.FS(), path)
	if errors.Is(err, os.ErrNotExist) {
		ids, err := listSegments(cfg.Disk.FS(), filepath.Join(cfg.Dir, "segments"))
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			return wire.Errorf(wire.Corrupt, opOpen, path, "the file is missing, but there are segments; write %q into it if they belong to server %d", identity(cfg.Node), cfg.Node)
		}
		return writeIdentity(cfg, path)
	}
	if err != nil {
		return openError(path, err)
	}
	var version int
	var node uint32
	if _, err := fmt.Sscanf(string(b), identityFormat, &version, &node); err != nil || string(b) != fmt.Sprintf(identityFormat, version, node) {
		return wire.Errorf(wire.Corrupt, opOpen, path, "the file is damaged; it should read %q if the directory belongs to server %d", identity(cfg.Node), cfg.Node)
	}
	if version != formatVersion {
		return wire.Errorf(wire.Invalid, opOpen, path, "the store has format %d, this program knows %d", version, formatVersion)
	}
	if node != cfg.Node {
		return wire.Errorf(wire.Invalid, opOpen, path, "the directory belongs to server %d, not to %d", node, cfg.Node)
	}
	return nil
}

const identityFormat = "quern chunk store %d node %d\n"

func identity(node uint32) string { return fmt.Sprintf(identityFormat, formatVersion, node) }

func writeIdentity(cfg Config, path string) error {
	fs := cfg.Disk.FS()
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write([]byte(identity(cfg.Node)))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = fs.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(fs, cfg.Dir)
	}
	if err != nil {
		return openError(path, err)
	}
	return nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

func openError(path string, err error) error {
	var e *wire.Error
	if errors.As(err, &e) && e.Op != "" {
		return err
	}
	return &wire.Error{Code: wire.CodeOf(err), Op: opOpen, Object: path, Err: err}
}
