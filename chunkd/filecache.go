package chunkd

import (
	"container/list"
	"errors"
	"io"
	"os"
	"sync"
)

// segmentReader is a segment open for reading. After Close its reads fail with
// os.ErrClosed.
type segmentReader interface {
	io.ReaderAt
	io.Closer
}

// fileCache keeps the segments that were read last open.
type fileCache struct {
	open func(segment uint64) (segmentReader, error)

	mu    sync.Mutex // guards what follows
	files map[uint64]*list.Element
	order *list.List // of openFile, newest first
}

type openFile struct {
	segment uint64
	f       segmentReader
}

const maxOpenFiles = 256

func newFileCache() *fileCache {
	return &fileCache{files: map[uint64]*list.Element{}, order: list.New()}
}

// read fills p from a segment.
func (c *fileCache) read(segment uint64, p []byte, off int64) error {
	for {
		f, err := c.get(segment)
		if err != nil {
			return err
		}
		_, err = f.ReadAt(p, off)
		if !errors.Is(err, os.ErrClosed) { // else another reader needed the slot
			return err
		}
	}
}

func (c *fileCache) get(segment uint64) (segmentReader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.files[segment]; el != nil {
		c.order.MoveToFront(el)
		return el.Value.(openFile).f, nil
	}
	f, err := c.open(segment)
	if err != nil {
		return nil, err
	}
	c.files[segment] = c.order.PushFront(openFile{segment, f})
	for len(c.files) > maxOpenFiles {
		c.remove(c.order.Back())
	}
	return f, nil
}

// remove closes a file; a read under way ends first.
func (c *fileCache) remove(el *list.Element) {
	o := c.order.Remove(el).(openFile)
	delete(c.files, o.segment)
	o.f.Close()
}

func (c *fileCache) drop(segment uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.files[segment]; el != nil {
		c.remove(el)
	}
}

func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}
