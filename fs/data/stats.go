package data

import "sync/atomic"

// Stats are counts since New, except where a line says now.
type Stats struct {
	Dirty        int64 // bytes of buffers with dirty data, now, in flight included
	Files        int64 // File objects, now
	Written      int64 // bytes given to WriteAt
	Stalls       int64 // times that a write waited for memory
	Blocks       int64 // blocks stored
	Uploaded     int64 // bytes in them
	UploadErrors int64
	Commits      int64
	Updates      int64 // files in them
	CommitErrors int64
	Read         int64 // bytes returned by ReadAt
	CellHits     int64 // small reads served from the cache
	CellMisses   int64 // reads that filled it
	Direct       int64 // large reads that went by it
	Prefetched   int64 // blocks fetched ahead
	AheadHits    int64 // reads served from them
	Fetches      int64 // pages of extents asked for
	CacheUsed    int64 // bytes of cells, now
}

type counters struct {
	written, stalls, blocks, uploaded, uploadErrors, commits, updates, commitErrors atomic.Int64
	read, hits, misses, direct, prefetched, aheadHits, fetches                      atomic.Int64
}

// Stats returns the counters.
func (p *Path) Stats() Stats {
	c := &p.stats
	s := Stats{
		Written: c.written.Load(), Stalls: c.stalls.Load(),
		Blocks: c.blocks.Load(), Uploaded: c.uploaded.Load(), UploadErrors: c.uploadErrors.Load(),
		Commits: c.commits.Load(), Updates: c.updates.Load(), CommitErrors: c.commitErrors.Load(),
		Read: c.read.Load(), CellHits: c.hits.Load(), CellMisses: c.misses.Load(), Direct: c.direct.Load(),
		Prefetched: c.prefetched.Load(), AheadHits: c.aheadHits.Load(), Fetches: c.fetches.Load(),
	}
	p.mu.Lock()
	s.Dirty = p.used
	p.mu.Unlock()
	p.filesMu.Lock()
	s.Files = int64(len(p.files))
	p.filesMu.Unlock()
	p.cells.mu.Lock()
	s.CacheUsed = p.cells.used
	p.cells.mu.Unlock()
	return s
}
