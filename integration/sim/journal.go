package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"quernfs/internal/wire"
)

const (
	cellSize = 1 << 10
	cells    = 4 << 10 // of one journal: 4 MiB
)

// journal is a file of one writer whose every cell tells which write it is from,
// so that each reader knows which ones he may see.
type journal struct {
	path string
	ino  uint64

	mu      sync.Mutex
	version uint64
	lives   int // how often its writer has died
	cell    [cells]cell
}

// cell has the versions that may be read: those from low to high that were
// written here. What was flushed stays when the writer dies.
type cell struct{ low, high, flushed uint64 }

func fill(p []byte, ino uint64, at int, version uint64) {
	if version == 0 {
		clear(p)
		return
	}
	r := rand.New(rand.NewPCG(ino<<20|uint64(at), version))
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	binary.LittleEndian.PutUint64(p, version)
}

// write writes n cells from at on.
func (j *journal) write(ctx context.Context, s *session, at, n int) error {
	j.mu.Lock()
	j.version++
	v, lives := j.version, j.lives
	for i := at; i < at+n; i++ {
		j.cell[i].high = v
	}
	j.mu.Unlock()
	buf := make([]byte, n*cellSize)
	for i := range n {
		fill(buf[i*cellSize:(i+1)*cellSize], j.ino, at+i, v)
	}
	f, err := s.fs.OpenInode(ctx, j.ino)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(ctx, buf, int64(at)*cellSize); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lives == lives {
		for i := at; i < at+n; i++ {
			j.cell[i].low = v
		}
	}
	return nil
}

// flush makes what was written durable. still says that the session is the one
// that began it.
func (j *journal) flush(ctx context.Context, s *session, still func() bool) error {
	j.mu.Lock()
	lives := j.lives
	want := j.cell
	j.mu.Unlock()
	f, err := s.fs.OpenInode(ctx, j.ino)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Flush(ctx); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lives == lives && still() {
		for i := range want {
			j.cell[i].flushed = max(j.cell[i].flushed, want[i].low)
		}
	}
	return nil
}

// died: the writer is gone, or has lost its session.
func (j *journal) died() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lives++
	for i := range j.cell {
		j.cell[i].low = j.cell[i].flushed
	}
}

// doubt is something that was read and that is wrong unless the writer had lost
// its session by then, which it may not know yet.
type doubt struct {
	wrong error
	j     *journal
	lives int
}

// cleared: the writer has lost its session meanwhile.
func (d *doubt) cleared() bool {
	d.j.mu.Lock()
	defer d.j.mu.Unlock()
	return d.j.lives != d.lives
}

// read reads n cells from at on through any client, and says what is wrong with
// them, and what may be. settle: the reader is the next writer; what it sees
// stays.
func (j *journal) read(ctx context.Context, s *session, at, n int, settle bool) (wrong error, may *doubt, err error) {
	j.mu.Lock()
	before := j.cell
	lives := j.lives
	j.mu.Unlock()
	f, err := s.fs.OpenInode(ctx, j.ino)
	if errors.Is(err, wire.NotFound) {
		return fmt.Errorf("%s is gone: %w", j.path, err), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	buf := make([]byte, n*cellSize)
	got, err := f.ReadAt(ctx, buf, int64(at)*cellSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	clear(buf[got:])
	j.mu.Lock()
	defer j.mu.Unlock()
	want := make([]byte, cellSize)
	for i := range n {
		c := &j.cell[at+i]
		low, high := before[at+i].low, c.high
		if lives != j.lives {
			low = min(low, c.flushed)
		}
		p := buf[i*cellSize : (i+1)*cellSize]
		v := binary.LittleEndian.Uint64(p)
		fill(want, j.ino, at+i, v)
		switch {
		case !bytes.Equal(p, want):
			return fmt.Errorf("%s, cell %d: bytes that nobody wrote (version %d; %d to %d may be there; %d bytes were read)", j.path, at+i, v, low, high, got), nil, nil
		case v < low || v > high:
			wrong := fmt.Errorf("%s, cell %d: version %d, where %d to %d may be; flushed %d, %d bytes were read", j.path, at+i, v, low, high, c.flushed, got)
			if v < c.flushed || v > high {
				return wrong, nil, nil
			}
			return nil, &doubt{wrong, j, lives}, nil
		}
		if settle && lives == j.lives {
			c.low, c.high, c.flushed = v, v, min(v, c.flushed)
		}
	}
	return nil, nil, nil
}
