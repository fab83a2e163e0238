package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// subject is one file of the model test: what it should hold, and what Flush
// has promised of it.
type subject struct {
	f    *File
	ino  uint64
	want []byte

	mu       sync.Mutex
	promised []byte
	touched  []bool // changed since the promise: by offset, beyond its length too
}

// touch says that [off, end) may be committed with other content from now on.
func (s *subject) touch(off, end int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end > len(s.touched) {
		s.touched = append(s.touched, make([]bool, end-len(s.touched))...)
	}
	for i := off; i < end; i++ {
		s.touched[i] = true
	}
}

func (s *subject) promise(content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised = bytes.Clone(content)
	clear(s.touched)
}

// check compares what is committed with what was promised.
func (s *subject) check(t testing.TB, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.promised {
		if i < len(s.touched) && s.touched[i] {
			continue
		}
		if i >= len(content) || content[i] != b {
			t.Errorf("ino %d: promised byte %d is lost (%d bytes committed)", s.ino, i, len(content))
			return
		}
	}
}

func (s *subject) grow(n int) {
	if n > len(s.want) {
		s.want = append(s.want, make([]byte, n-len(s.want))...)
	}
}

// TestModel does random operations on several files at once, of which each must
// always read as a slice of bytes does, and be committed as promised, while
// uploads, commits, answers and reads fail.
func TestModel(t *testing.T) {
	policies := []block.Policy{
		policy(2, 1, 64<<10, 0), policy(1, 1, 4<<10, block.NeverInline), policy(4, 2, 0, 0), policy(2, 1, 16<<10, 8<<10),
	}
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runModel(t, seed, policies, round%3 == 2)
			})
		})
	}
}

func runModel(t *testing.T, seed uint64, policies []block.Policy, calm bool) {
	c := newCluster(t)
	c.holey = true
	c.pageLimit = 7
	var faults sync.Mutex
	faultRng := rand.New(rand.NewPCG(seed, 99))
	chance := func(percent int) bool {
		faults.Lock()
		defer faults.Unlock()
		return !calm && faultRng.IntN(100) < percent
	}
	pause := func(ms int) {
		faults.Lock()
		d := time.Duration(faultRng.IntN(ms*1000)) * time.Microsecond
		faults.Unlock()
		time.Sleep(d) // of the bubble's clock
	}
	c.onWrite = func(context.Context, []byte) error {
		pause(20)
		if chance(8) {
			return wire.Unavailable
		}
		return nil
	}
	c.onCommit = func(context.Context, *wire.Commit) (error, error) {
		pause(10)
		switch {
		case chance(6):
			return wire.NotLeader, nil
		case chance(4):
			return nil, wire.Timeout
		case chance(2):
			return wire.Internal, nil
		}
		return nil, nil
	}
	c.onRead = func(context.Context, uint64, int) error {
		pause(2)
		if chance(1) {
			return wire.Unavailable
		}
		return nil
	}
	c.onExtents = func() error {
		pause(2)
		return nil
	}
	p := New(Config{DirtyLimit: 1 << 20, CacheBytes: 1 << 20, Uploads: 3, ReadAhead: 2}, c, c)
	subjects := map[uint64]*subject{}
	c.committed = func(ino uint64) { subjects[ino].check(t, c.contentLocked(ino)) }
	var wg sync.WaitGroup
	for i := range 5 {
		ino := uint64(100 + i)
		s := &subject{ino: ino}
		subjects[ino] = s
		s.f = p.File(c.create(ino, policies[i%len(policies)]))
	}
	done := make(chan struct{})
	for i := range 5 {
		s := subjects[uint64(100+i)]
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { s.run(t, c, p, rng) })
	}
	// A reader that no order binds: it must only never fail.
	var readers sync.WaitGroup
	for i := range 2 {
		rng := rand.New(rand.NewPCG(seed, uint64(50+i)))
		readers.Go(func() {
			buf := make([]byte, 10000)
			for {
				select {
				case <-done:
					return
				default:
				}
				f := p.Lookup(uint64(100 + rng.IntN(5)))
				if f != nil {
					_, err := f.ReadAt(context.Background(), buf[:1+rng.IntN(len(buf))], int64(rng.IntN(300000)))
					if err != nil && err != io.EOF && !errors.Is(err, wire.Unavailable) {
						t.Errorf("reader: %v", err)
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	close(done)
	readers.Wait()
	faults.Lock()
	calm = true
	faults.Unlock()
	closed(t, p)
	for ino, s := range subjects {
		if !bytes.Equal(c.content(ino), s.want) {
			t.Errorf("ino %d: committed content differs after Close", ino)
		}
	}
	synctest.Wait()
}

// run does random operations on one file.
func (s *subject) run(t *testing.T, c *cluster, p *Path, rng *rand.Rand) {
	ctx := context.Background()
	failing := errors.New("injected")
	for step := range 400 {
		off := rng.IntN(1 + min(len(s.want)+1000, 300000))
		if rng.IntN(3) == 0 {
			off = len(s.want) // append
		}
		switch k := rng.IntN(100); {
		case k < 45:
			n := 1 + rng.IntN(300)
			switch rng.IntN(8) {
			case 0:
				n = 1 + rng.IntN(90000)
			case 1, 2:
				n, off = 4096, off&^4095
			}
			b := fill(step*7+int(s.ino), n)
			s.touch(off, off+n)
			if m, err := s.f.WriteAt(ctx, b, int64(off)); err != nil || m != n {
				t.Errorf("write: %d, %v", m, err)
				return
			}
			s.grow(off + n)
			copy(s.want[off:], b)
		case k < 70:
			n := 1 + rng.IntN(20000)
			if rng.IntN(10) == 0 {
				off, n = 0, len(s.want)+1
			}
			buf := make([]byte, n)
			m, err := s.f.ReadAt(ctx, buf, int64(off))
			if errors.Is(err, wire.Unavailable) {
				continue // injected twice
			}
			want := s.want[min(off, len(s.want)):min(off+n, len(s.want))]
			if err != nil && err != io.EOF || m != len(want) || (err == io.EOF) != (m < n) {
				t.Errorf("step %d: read %d at %d of %d: %d, %v", step, n, off, len(s.want), m, err)
				return
			}
			if i := firstDiff(buf[:m], want); i >= 0 {
				t.Errorf("step %d: ino %d byte %d differs: %d, want %d", step, s.ino, off+i, buf[i], want[i])
				return
			}
		case k < 80:
			want := bytes.Clone(s.want)
			allocated, ok := s.allocated(t, step)
			if !ok {
				return
			}
			if err := s.f.Flush(ctx); err != nil {
				t.Errorf("flush: %v", err)
				return
			}
			if got := c.inode(s.ino).Attr.Allocated; got != uint64(allocated) {
				t.Errorf("step %d: ino %d: it occupied %d bytes before it was flushed, and %d since", step, s.ino, allocated, got)
				return
			}
			s.promise(want)
			if got := c.content(s.ino); firstDiff(got, want) >= 0 {
				t.Errorf("step %d: ino %d: committed %d bytes, want %d, first difference at %d", step, s.ino, len(got), len(want), firstDiff(got, want))
				return
			}
		case k < 85:
			size := rng.IntN(1 + len(s.want)*3/2)
			if rng.IntN(3) == 0 {
				size = rng.IntN(2) * rng.IntN(3000)
			}
			s.touch(min(size, len(s.want)), max(len(s.want), len(s.promised), size))
			fail := rng.IntN(5) == 0
			err := s.f.Truncate(ctx, int64(size), func(context.Context) (*wire.Inode, error) {
				before := s.f.TakeDeferred()
				if fail {
					s.f.ReturnDeferred(before)
					return nil, failing
				}
				time.Sleep(time.Millisecond)
				return c.setSize(s.ino, int64(size)), nil
			})
			if fail != (err == failing) || !fail && err != nil {
				t.Errorf("truncate: %v", err)
				return
			}
			if !fail {
				s.want = s.want[:min(size, len(s.want)):min(size, len(s.want))]
				s.grow(size)
			}
		case k < 89:
			n := 1 + rng.IntN(30000)
			keep := rng.IntN(2) == 0
			size := 0
			if !keep {
				size = off + n
			}
			s.touch(off, off+n)
			err := s.f.Punch(ctx, int64(off), int64(n), func(context.Context) (*wire.Inode, error) {
				return c.punch(s.ino, int64(off), int64(n), int64(size)), nil
			})
			if err != nil {
				t.Errorf("punch: %v", err)
				return
			}
			if off < len(s.want) {
				clear(s.want[off:min(off+n, len(s.want))])
			}
			s.grow(size)
		case k < 93:
			s.seek(t, rng)
		case k < 95:
			s.f.Reset(c.inode(s.ino))
		case k < 96:
			if err := s.f.MakeExtents(ctx, 1, 1); err != nil {
				t.Errorf("make extents: %v", err)
			}
			s.promise(s.want)
		case k < 97:
			p.Forget(s.ino)
			s.f = p.File(c.inode(s.ino))
		case k < 98:
			s.f.SetAttr(&wire.SetAttr{Mask: wire.SetMtime, MtimeNs: int64(step)})
		case k < 99:
			n := 1 + rng.IntN(30000)
			s.touch(off, off+n)
			err := s.f.Mutate(ctx, func(context.Context) (*wire.Inode, error) {
				if s.f.Dirty() {
					t.Errorf("ino %d is dirty in Mutate", s.ino)
				}
				return c.punch(s.ino, int64(off), int64(n), int64(off+n)), nil
			})
			if err != nil {
				t.Errorf("mutate: %v", err)
				return
			}
			s.grow(off + n)
			clear(s.want[off : off+n])
		default:
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
		if rng.IntN(4) == 0 {
			if _, ok := s.allocated(t, step); !ok {
				return
			}
		}
		if s.f.Size() != int64(len(s.want)) {
			t.Errorf("step %d: ino %d: size %d, want %d", step, s.ino, s.f.Size(), len(s.want))
			return
		}
	}
}

// allocated asks how much the file occupies, and compares it with what is in it:
// every byte that is not zero, and every byte that SEEK_DATA finds, is counted.
func (s *subject) allocated(t *testing.T, step int) (int64, bool) {
	ctx := context.Background()
	n, err := s.f.Allocated(ctx)
	if err != nil {
		t.Errorf("step %d: allocated: %v", step, err)
		return 0, false
	}
	least := int64(len(s.want) - bytes.Count(s.want, []byte{0}))
	found := int64(0)
	for pos := int64(0); ; {
		data, err := s.f.Seek(ctx, pos, false)
		if err == syscall.ENXIO {
			break
		} else if err != nil {
			t.Errorf("seek: %v", err)
			return 0, false
		}
		if pos, err = s.f.Seek(ctx, data, true); err != nil {
			t.Errorf("seek: %v", err)
			return 0, false
		}
		found += pos - data
	}
	if n < max(least, found) || n > int64(len(s.want)) {
		t.Errorf("step %d: ino %d: it occupies %d of %d bytes: %d are not zero, %d are found by SEEK_DATA", step, s.ino, n, len(s.want), least, found)
		return 0, false
	}
	return n, true
}

// seek compares with the content: what is said to be a hole must be zeros.
func (s *subject) seek(t *testing.T, rng *rand.Rand) {
	ctx := context.Background()
	off := int64(rng.IntN(len(s.want) + 10))
	data, err := s.f.Seek(ctx, off, false)
	if off >= int64(len(s.want)) {
		if err != syscall.ENXIO {
			t.Errorf("seek past the end: %d, %v", data, err)
		}
		return
	}
	if err == syscall.ENXIO {
		data = int64(len(s.want))
	} else if err != nil {
		t.Errorf("seek data: %v", err)
		return
	}
	if data < off || len(bytes.Trim(s.want[off:data], "\x00")) > 0 {
		t.Errorf("ino %d: seek data from %d to %d skips data", s.ino, off, data)
	}
	hole, err := s.f.Seek(ctx, off, true)
	if err != nil || hole < off || hole > int64(len(s.want)) {
		t.Errorf("seek hole from %d: %d, %v", off, hole, err)
	}
}
