package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/integration/linear"
	"quernfs/internal/wire"
)

// workload is what the clients do. Its history is judged after the run.
type workload struct {
	c       *cluster
	history *linear.Recorder
	numbers atomic.Int64 // of clients and owners
	groups  []*group
	stop    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	ids     map[*session]*identity
	writers []*journal // by slot
	doubts  []*doubt

	ops, failed atomic.Int64
}

// group is a pair of directories with few names.
type group struct {
	name string
	dirs map[string]uint64
}

// identity is a client of the history: one session at the metadata servers.
type identity struct {
	number  int
	session uint64
}

var dirNames, fileNames = []string{"d", "e"}, []string{"a", "b", "c"}

// me says which client of the history a session is now. Where the metadata
// servers have ended its session it is another from then on.
func (w *workload) me(s *session, slot int) int {
	now := s.fs.Session()
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.ids[s]
	if id == nil {
		id = &identity{number: int(w.numbers.Add(1)), session: now}
		w.ids[s] = id
	}
	if id.session != now {
		w.gone(id, slot)
		id.number, id.session = int(w.numbers.Add(1)), now
	}
	return id.number
}

// gone notes that what a client had not flushed may be lost. w.mu is held.
func (w *workload) gone(id *identity, slot int) {
	w.history.Killed(id.number)
	if j := w.writers[slot]; j != nil {
		j.died()
	}
}

// killed notes the end of a session.
func (w *workload) killed(s *session, slot int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.ids[s]; id != nil {
		w.gone(id, slot)
		delete(w.ids, s)
	} else if j := w.writers[slot]; j != nil {
		j.died()
	}
}

// prepare makes the directories of a round.
func (w *workload) prepare(round int) error {
	w.groups = nil
	for g := range 3 {
		gr := &group{name: fmt.Sprintf("r%d.g%d", round, g), dirs: map[string]uint64{}}
		for _, d := range dirNames {
			name := gr.name + "." + d
			err := w.insist(func(ctx context.Context, s *session) error {
				in, err := s.fs.Mkdir(ctx, wire.RootIno, name, 0o755)
				if err == nil {
					gr.dirs[d] = in.Attr.Ino
				} else if errors.Is(err, wire.Exists) {
					gr.dirs[d], err = s.fs.Lookup(ctx, wire.RootIno, name)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		w.groups = append(w.groups, gr)
	}
	return nil
}

// insist does f with any client until it succeeds.
func (w *workload) insist(f func(context.Context, *session) error) error {
	err := errors.New("no client runs")
	for i := range 20 {
		if s := w.c.clients[i%len(w.c.clients)].now(); s != nil {
			ctx, done := context.WithTimeout(context.Background(), time.Minute)
			err = f(ctx, s)
			done()
			if err == nil {
				return nil
			}
		}
		time.Sleep(2 * time.Second)
	}
	return err
}

// begin starts the clients' goroutines.
func (w *workload) begin(round int) {
	w.stop = make(chan struct{})
	for slot, m := range w.c.clients {
		for i := range 2 {
			rnd := stream(w.c.cfg.Seed, fmt.Sprintf("names %d %d %d", round, slot, i))
			w.wg.Go(func() { w.loop(m, rnd, 200*time.Millisecond, w.operate) })
		}
		rnd := stream(w.c.cfg.Seed, fmt.Sprintf("journal %d %d", round, slot))
		w.wg.Go(func() { w.loop(m, rnd, 400*time.Millisecond, w.journal) })
	}
}

// end stops them and waits for what they have begun.
func (w *workload) end() {
	close(w.stop)
	w.wg.Wait()
}

func (w *workload) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

func (w *workload) loop(m *mount, rnd *rand.Rand, pause time.Duration, do func(context.Context, *session, int, *rand.Rand)) {
	for !w.stopped() {
		time.Sleep(time.Duration(rnd.Int64N(int64(pause))))
		s := m.now()
		if s == nil {
			continue
		}
		ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
		began := time.Now()
		do(ctx, s, m.slot, rnd)
		done()
		if d := time.Since(began); d > 31*time.Second && !s.proc.killed() {
			w.c.violation("an operation took %v", d)
		}
	}
}

// result turns an error into what the history knows.
func (w *workload) result(s *session, op linear.Op, err error) linear.Result {
	w.ops.Add(1)
	switch wire.CodeOf(err) {
	case wire.OK:
		return linear.Result{}
	case wire.Exists:
		return linear.Result{Err: "EEXIST"}
	case wire.NotFound, wire.Stale:
		return linear.Result{Err: "ENOENT"}
	case wire.Again:
		return linear.Result{Err: "EAGAIN"}
	case wire.Timeout, wire.Unavailable, wire.Interrupted, wire.NoSession, wire.Shutdown, wire.TooFew, wire.NoSpace:
	default:
		if !s.proc.killed() {
			w.c.violation("%v: %v", op, err)
		}
	}
	w.failed.Add(1)
	return linear.Result{Unknown: true}
}

// operate does one random operation on names, contents or locks.
func (w *workload) operate(ctx context.Context, s *session, slot int, rnd *rand.Rand) {
	g := w.groups[rnd.IntN(len(w.groups))]
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	op := linear.Op{Group: g.name, Dir: pick(dirNames), Name: pick(fileNames)}
	dir := g.dirs[op.Dir]
	me := w.me(s, slot)
	var res linear.Result
	switch n := rnd.IntN(100); {
	case n < 18:
		op.Kind, op.Owner = linear.Create, uint64(w.numbers.Add(1))
		end := w.history.Call(me, op)
		in, err := s.fs.CreateNew(ctx, dir, op.Name, 0o644)
		if res = w.result(s, op, err); err == nil {
			res.Ino = in.Attr.Ino
		}
		end(res)
	case n < 32:
		op.Kind = linear.Unlink
		end := w.history.Call(me, op)
		end(w.result(s, op, s.fs.Remove(ctx, dir, op.Name, false)))
	case n < 50:
		op.Kind, op.Dir2, op.Name2, op.Flags = linear.Rename, pick(dirNames), pick(fileNames), uint32(rnd.IntN(3))
		end := w.history.Call(me, op)
		end(w.result(s, op, s.fs.RenameAs(ctx, dir, op.Name, g.dirs[op.Dir2], op.Name2, op.Flags)))
	case n < 60:
		op.Kind = linear.List
		end := w.history.Call(me, op)
		list, err := s.fs.ReadDirInode(ctx, dir)
		if res = w.result(s, op, err); err == nil {
			res.Names = map[string]uint64{}
			for _, e := range list {
				res.Names[e.Name] = e.Ino
			}
		}
		end(res)
	default:
		op.Kind = linear.Lookup
		end := w.history.Call(me, op)
		ino, err := s.fs.Lookup(ctx, dir, op.Name)
		if res = w.result(s, op, err); err == nil {
			res.Ino = ino
		}
		end(res)
		if err != nil {
			return
		}
		if rnd.IntN(6) == 0 {
			op = linear.Op{Kind: linear.Link, Group: g.name, Ino: ino, Dir: pick(dirNames), Name: pick(fileNames)}
			end := w.history.Call(me, op)
			end(w.result(s, op, s.fs.Link(ctx, ino, g.dirs[op.Dir], op.Name)))
			return
		}
		if rnd.IntN(5) == 0 {
			w.lock(ctx, s, slot, ino, rnd)
			return
		}
		w.contents(ctx, s, slot, ino, rnd)
	}
}

// contents does a few things with one file.
func (w *workload) contents(ctx context.Context, s *session, slot int, ino uint64, rnd *rand.Rand) {
	me := w.me(s, slot)
	f, err := s.fs.OpenInode(ctx, ino)
	if err != nil {
		w.result(s, linear.Op{Kind: linear.Read, Ino: ino}, err)
		return
	}
	defer f.Close()
	for range 1 + rnd.IntN(3) {
		op := linear.Op{Ino: ino}
		switch rnd.IntN(5) {
		case 0, 1:
			op.Kind, op.Off = linear.Write, int64(rnd.IntN(4))*40
			op.Data = fmt.Sprintf("<%d>", w.numbers.Add(1))
			end := w.history.Call(me, op)
			_, err := f.WriteAt(ctx, []byte(op.Data), op.Off)
			end(w.result(s, op, err))
		case 2:
			op.Kind, op.N = linear.Truncate, int64(rnd.IntN(200))
			end := w.history.Call(me, op)
			end(w.result(s, op, f.Truncate(ctx, op.N)))
		case 3:
			op.Kind = linear.Size
			end := w.history.Call(me, op)
			in, err := s.fs.StatInode(ctx, ino)
			res := w.result(s, op, err)
			if err == nil {
				res.N = int64(in.Attr.Size)
			}
			end(res)
		default:
			op.Kind = linear.Read
			buf := make([]byte, 1024)
			end := w.history.Call(me, op)
			n, err := f.ReadAt(ctx, buf, 0)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			res := w.result(s, op, err)
			res.Data = string(buf[:n])
			end(res)
		}
	}
	if rnd.IntN(2) == 0 {
		since := w.history.Mark()
		err := f.Flush(ctx)
		if w.result(s, linear.Op{Kind: linear.Write, Ino: ino}, err); err == nil && w.me(s, slot) == me {
			w.history.Flushed(me, ino, since)
		}
	}
}

// lock takes a lock, and gives it up a little later.
func (w *workload) lock(ctx context.Context, s *session, slot int, ino uint64, rnd *rand.Rand) {
	me := w.me(s, slot)
	f, err := s.fs.OpenInode(ctx, ino)
	if err != nil {
		return
	}
	defer f.Close()
	op := linear.Op{Kind: linear.Lock, Ino: ino, Owner: uint64(w.numbers.Add(1))}
	const exclusive = 1
	end := w.history.Call(me, op)
	err = s.fs.Flock(ctx, ino, op.Owner, exclusive)
	res := w.result(s, op, err)
	end(res)
	if res.Err != "" {
		return
	}
	time.Sleep(time.Duration(rnd.Int64N(int64(300 * time.Millisecond))))
	op.Kind = linear.Unlock
	end = w.history.Call(me, op)
	end(w.result(s, op, s.fs.Flock(ctx, ino, op.Owner, wire.Unlock)))
}

// journal writes to the client's own journal, or reads any.
func (w *workload) journal(ctx context.Context, s *session, slot int, rnd *rand.Rand) {
	me := w.me(s, slot)
	w.mu.Lock()
	j := w.writers[slot]
	w.mu.Unlock()
	if j == nil {
		return
	}
	n := 1 + rnd.IntN(40)
	if rnd.IntN(8) == 0 {
		n = 1 + rnd.IntN(1500)
	}
	at := rnd.IntN(cells - n)
	var err error
	switch rnd.IntN(6) {
	case 0, 1, 2:
		err = j.write(ctx, s, at, n)
	case 3:
		err = j.flush(ctx, s, func() bool { return w.me(s, slot) == me })
	default:
		if rnd.IntN(2) == 0 {
			w.mu.Lock()
			j = w.writers[rnd.IntN(len(w.writers))]
			w.mu.Unlock()
		}
		var wrong error
		var may *doubt
		wrong, may, err = j.read(ctx, s, at, n, false)
		if s.proc.killed() || w.me(s, slot) != me {
			return
		}
		if wrong != nil {
			w.c.violation("client %d reads %v", slot+1, wrong)
		}
		if may != nil {
			w.mu.Lock()
			w.doubts = append(w.doubts, may)
			w.mu.Unlock()
		}
	}
	w.result(s, linear.Op{Kind: linear.Write, Ino: j.ino}, err)
}

// open makes the journals.
func (w *workload) open() error {
	for slot := range w.c.clients {
		path := fmt.Sprintf("journal-%d", slot+1)
		err := w.insist(func(ctx context.Context, s *session) error {
			f, err := s.fs.Create(ctx, wire.RootIno, path, 0o644)
			if err != nil {
				return err
			}
			defer f.Close()
			w.writers[slot] = &journal{path: path, ino: f.Inode().Attr.Ino}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
