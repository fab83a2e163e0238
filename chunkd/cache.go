package chunkd

import (
	"container/list"
	"os"
	"sync"
)

// shardInfo is what a reader keeps of a shard: the verified leaf digests and,
// for a server on this host, where the bytes lie. A shard never changes, but it
// may move: then only the digests are of use.
type shardInfo struct {
	leaves  []byte
	server  uint32 // 0: place unknown
	segment uint64
	off     int64
}

// shardCache keeps the infos used last, bounded by bytes.
type shardCache struct {
	limit int

	mu    sync.Mutex // guards what follows
	size  int
	infos map[shardID]*list.Element
	order *list.List // of cachedShard, newest first
}

type cachedShard struct {
	id   shardID
	info shardInfo
}

func newShardCache(limit int) *shardCache {
	return &shardCache{limit: limit, infos: map[shardID]*list.Element{}, order: list.New()}
}

// cost is about what an info takes in memory.
func (i *shardInfo) cost() int { return len(i.leaves) + 200 }

func (c *shardCache) get(id shardID) (shardInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.infos[id]
	if el == nil {
		return shardInfo{}, false
	}
	c.order.MoveToFront(el)
	return el.Value.(cachedShard).info, true
}

func (c *shardCache) put(id shardID, info shardInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.infos[id]; el != nil {
		c.remove(el)
	}
	c.infos[id] = c.order.PushFront(cachedShard{id, info})
	c.size += info.cost()
	for c.size > c.limit && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

func (c *shardCache) remove(el *list.Element) {
	s := c.order.Remove(el).(cachedShard)
	delete(c.infos, s.id)
	c.size -= s.info.cost()
}

// forgetPlace drops where a shard was thought to lie.
func (c *shardCache) forgetPlace(id shardID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.infos[id]; el != nil {
		s := el.Value.(cachedShard)
		s.info.server = 0
		el.Value = s
	}
}

// segmentOf names a segment of a server.
type segmentOf struct {
	server  uint32
	segment uint64
}

// clientFiles keeps segments of servers on this host open.
type clientFiles struct {
	mu     sync.Mutex // guards what follows
	closed bool
	files  map[segmentOf]*list.Element
	order  *list.List // of passedFile, newest first
}

type passedFile struct {
	key segmentOf
	f   *os.File
}

const maxPassedFiles = 256

func newClientFiles() *clientFiles {
	return &clientFiles{files: map[segmentOf]*list.Element{}, order: list.New()}
}

func (c *clientFiles) get(key segmentOf) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.files[key]
	if el == nil {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(passedFile).f
}

// put keeps f and returns the file to use: that of another call which came
// first, or f.
func (c *clientFiles) put(key segmentOf, f *os.File) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.files[key]; el != nil {
		closeFile(f)
		return el.Value.(passedFile).f
	}
	if c.closed {
		closeFile(f)
		return f
	}
	c.files[key] = c.order.PushFront(passedFile{key, f})
	for c.order.Len() > maxPassedFiles {
		c.remove(c.order.Back())
	}
	return f
}

// remove closes a file; a read under way ends first, a later one of the same
// *os.File fails with os.ErrClosed.
func (c *clientFiles) remove(el *list.Element) {
	p := c.order.Remove(el).(passedFile)
	delete(c.files, p.key)
	closeFile(p.f)
}

// drop closes one segment's file.
func (c *clientFiles) drop(key segmentOf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.files[key]; el != nil {
		c.remove(el)
	}
}

// dropServer closes all files of a server.
func (c *clientFiles) dropServer(server uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, el := range c.files {
		if key.server == server {
			c.remove(el)
		}
	}
}

func (c *clientFiles) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}
