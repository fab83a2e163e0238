package chunkd

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

// diskSpace remembers what statfs said for a moment.
type diskSpace struct {
	asked time.Time
	total int64
	free  int64
	taken int64 // since it was asked
	name  string
}

const (
	spaceAge = 250 * time.Millisecond
	// Once the disk was full, puts begin again when there is so much room.
	backInService = 16 << 20
	// … and when so much time has passed: a quota does not show in statfs.
	fullFor = 2 * time.Second
)

// disk asks how much space the disk has. Store.mu is held.
func (s *Store) disk() (total, free int64) {
	if now := s.cfg.Now(); s.space.asked.IsZero() || now.Sub(s.space.asked) > spaceAge {
		if total, free, name, err := s.cfg.Disk.Space(s.cfg.Dir); err == nil {
			s.space = diskSpace{asked: now, total: total, free: free, name: name}
		}
	}
	return s.space.total, s.space.free - s.space.taken
}

// diskName names the filesystem on this host; empty where it has no name.
func diskName(st *unix.Statfs_t) string {
	host, err := os.Hostname()
	if err != nil || st.Fsid == (unix.Fsid{}) {
		return ""
	}
	return fmt.Sprintf("%s:%08x%08x", host, uint32(st.Fsid.Val[0]), uint32(st.Fsid.Val[1]))
}

// free is how many more bytes of shards may be put. Store.mu is held.
func (s *Store) free() int64 {
	_, disk := s.disk()
	n := disk - s.cfg.Reserve
	if s.cfg.Capacity > 0 {
		n = min(n, s.cfg.Capacity-s.live.bytes)
	}
	if s.full && n >= backInService && s.cfg.Now().Sub(s.fullAt) >= fullFor {
		s.full = false
		s.log.Info("there is room again: shards are taken", "dir", s.cfg.Dir)
	}
	if s.full {
		return 0
	}
	return max(n, 0)
}

// room says NoSpace when a record of size bytes should not be put.
func (s *Store) room(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.free(); n < size {
		return wire.Errorf(wire.NoSpace, "", "", "the chunk server is full: %d bytes may still be used, keeping %d free", n, s.cfg.Reserve)
	}
	s.space.taken += size
	return nil
}

// Stats says how a Store is doing.
type Stats struct {
	Shards   int64
	Used     int64  // bytes that the shards take
	Total    int64  // Used and Free
	Free     int64  // bytes of shards that may still be put
	Disk     string // whose free space Free is; empty: this server's alone
	Segments int
	ReadOnly bool  // no puts: full, or the disk fails
	Full     bool  // no room for puts
	Fault    error // what the disk answered, if it fails

	// Since the store was opened.
	Puts, PutBytes, Reads, ReadBytes, Deletes, BadShards uint64
}

// Stats returns the counts.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := s.free()
	disk := s.space.name
	if s.cfg.Capacity > 0 {
		disk = ""
	}
	return Stats{
		Disk:   disk,
		Shards: s.live.shards, Used: s.live.bytes, Total: s.live.bytes + free, Free: free,
		Segments: len(s.segments), Full: free < backInService/4, ReadOnly: free < backInService/4 || s.fault != nil, Fault: s.fault,
		Puts: s.counters.puts.Load(), PutBytes: s.counters.putBytes.Load(),
		Reads: s.counters.reads.Load(), ReadBytes: s.counters.readBytes.Load(),
		Deletes: s.counters.deletes.Load(), BadShards: s.counters.badShards.Load(),
	}
}

// probe tries whether a disk that failed takes writes again.
func (s *Store) probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.fault == nil || s.active != nil {
		return
	}
	if err := s.newSegment(); err != nil {
		s.failed(err)
		return
	}
	s.fault = nil
	s.log.Info("the disk takes writes again", "dir", s.cfg.Dir)
}
