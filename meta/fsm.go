package meta

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/meta/state"
)

// fsm feeds the log to the state machine. Raft calls its methods from one
// goroutine; cur may be read by anyone.
type fsm struct {
	home *home
	log  *slog.Logger
	cur  atomic.Pointer[state.State]
	last atomic.Int64 // the latest time stamped into a command seen here

	applied, skipped atomic.Uint64 // entries, since start
	// fatal is called once when the state can take no more entries: the server
	// must stop, or its replica would silently fall behind.
	fatal func(error)
}

var _ raft.BatchingFSM = (*fsm)(nil)

func (f *fsm) state() *state.State { return f.cur.Load() }

func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	entries := make([]state.Entry, 0, len(logs))
	at := make([]int, 0, len(logs))
	done, term := f.state().Applied()
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		if l.Index == done && l.Term != term {
			err := fmt.Errorf("the state has entry %d of term %d, the log has one of term %d in its place", done, term, l.Term)
			f.fatal(err)
			for i := range out {
				out[i] = err
			}
			return out
		}
		if l.Index <= done {
			f.skipped.Add(1)
			continue
		}
		cmd := new(wire.Command)
		if err := proto.Unmarshal(l.Data, cmd); err != nil {
			// Every replica decodes the same bytes: all of them pass over it.
			out[i] = &wire.Result{Code: uint32(wire.Invalid), Message: "the log entry is no command", Index: l.Index}
			continue
		}
		if cmd.TimeNs > f.last.Load() {
			f.last.Store(cmd.TimeNs)
		}
		entries = append(entries, state.Entry{Index: l.Index, Term: l.Term, Command: cmd})
		at = append(at, i)
	}
	if len(entries) == 0 {
		return out
	}
	results, err := f.state().Apply(entries)
	if err != nil {
		f.fatal(err)
		for _, i := range at {
			out[i] = err
		}
		return out
	}
	f.applied.Add(uint64(len(entries)))
	for n, i := range at {
		out[i] = results[n]
	}
	return out
}

// Snapshot makes everything applied durable, as a checkpoint of linked files:
// cheap enough to be done before Apply goes on.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	dir, err := f.home.scratch("checkpoint")
	if err != nil {
		return nil, err
	}
	if err := f.state().Checkpoint(dir); err != nil {
		f.home.disk.fs().RemoveAll(filepath.Dir(dir))
		return nil, err
	}
	return &checkpoint{home: f.home, dir: dir}, nil
}

// Restore replaces the state by the one that a snapshot holds.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	have, _ := f.state().Applied()
	next, err := f.home.install(r, have)
	if err != nil {
		return fmt.Errorf("restore the metadata state: %w", err)
	}
	old := f.cur.Swap(next)
	if err := old.Close(); err != nil {
		f.log.Warn("the replaced state did not close", "err", err)
	}
	f.home.clean(false)
	index, _ := next.Applied()
	f.log.Info("state restored from a snapshot", "index", index)
	return nil
}

// checkpoint is a copy of the state that waits to be kept as a snapshot.
type checkpoint struct {
	home *home
	dir  string
}

// Persist hands the directory over to the snapshot store.
func (c *checkpoint) Persist(to raft.SnapshotSink) error {
	s, ok := to.(*sink)
	if !ok {
		to.Cancel()
		return fmt.Errorf("a snapshot sink of type %T", to)
	}
	if err := s.adopt(c.dir); err != nil {
		s.Cancel()
		return err
	}
	return s.Close()
}

func (c *checkpoint) Release() { c.home.disk.fs().RemoveAll(filepath.Dir(c.dir)) }
