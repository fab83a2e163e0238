package offload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/worker"
)

var errTooMuch = errors.New("the module wrote more than this host allows")

// taskOutput is the file that a task's standard output goes to. One goroutine
// uses it.
type taskOutput struct {
	ctx   context.Context
	file  File
	ino   uint64
	buf   []byte
	size  int64 // bytes written so far, buffered ones included
	limit int64
	tail  *worker.Tail
}

const outputBuffer = 1 << 20

// create makes the attempt directory and the output file in it. A directory of
// the same attempt is left from an agent that died in between.
func (r *attemptRun) create(ctx context.Context, name string) (*taskOutput, error) {
	files := r.agent.cfg.Files
	dir, err := files.Mkdir(ctx, wire.OutputsIno, attemptName(r.agent.cfg.Node, r.task), 0o700)
	if errors.Is(err, wire.Exists) {
		r.remove()
		dir, err = files.Mkdir(ctx, wire.OutputsIno, attemptName(r.agent.cfg.Node, r.task), 0o700)
	}
	if err != nil {
		return nil, err
	}
	r.dir = dir.Attr.Ino
	f, err := files.Create(ctx, r.dir, name, 0o644)
	if err != nil {
		return nil, err
	}
	return &taskOutput{ctx: ctx, file: f, ino: f.Inode().GetAttr().GetIno(), limit: r.agent.cfg.OutputLimit, tail: r.stdout}, nil
}

func (o *taskOutput) Write(p []byte) (int, error) {
	if o.size+int64(len(p)) > o.limit {
		return 0, fmt.Errorf("%w (%s)", errTooMuch, size(uint64(o.limit)))
	}
	_, _ = o.tail.Write(p)
	o.size += int64(len(p))
	o.buf = append(o.buf, p...)
	if len(o.buf) >= outputBuffer {
		return len(p), o.flush(o.ctx)
	}
	return len(p), nil
}

func (o *taskOutput) flush(ctx context.Context) error {
	off := o.size - int64(len(o.buf))
	for len(o.buf) > 0 {
		n, err := o.file.WriteAt(ctx, o.buf, off)
		if err != nil {
			return err
		}
		if n <= 0 {
			return wire.Errorf(wire.Internal, "write", fmt.Sprintf("ino %d", o.ino), "nothing was written")
		}
		o.buf, off = o.buf[n:], off+int64(n)
	}
	o.buf = nil
	return nil
}

// finish makes the output durable.
func (o *taskOutput) finish(ctx context.Context) error {
	if err := o.flush(ctx); err != nil {
		return err
	}
	if err := o.file.Sync(ctx); err != nil {
		return err
	}
	f := o.file
	o.file = nil
	return f.Close()
}

func (o *taskOutput) close() {
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
}

// own gives an output to the job's owner.
func (r *attemptRun) own(ctx context.Context, ino uint64) error {
	cred := r.job.GetCred()
	if cred.GetUid() == 0 && cred.GetGid() == 0 {
		return nil
	}
	_, err := r.agent.cfg.Meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{
		Ino: ino, Mask: wire.SetUID | wire.SetGID, Uid: cred.GetUid(), Gid: cred.GetGid(),
	}}})
	return err
}

// remove deletes the attempt directory with what is still in it. What fails is
// swept up when the agent starts again.
func (r *attemptRun) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.agent.removeDir(ctx, attemptName(r.agent.cfg.Node, r.task)); err != nil {
		r.agent.log.Warn("an attempt's directory is left behind", "dir", attemptName(r.agent.cfg.Node, r.task), "err", err)
	}
}

// removeDir deletes an attempt directory. It goes through meta alone: the
// mount may hold nothing of it.
func (a *Agent) removeDir(ctx context.Context, name string) error {
	ans, err := ask(ctx, a.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: wire.OutputsIno, Name: name}}})
	if errors.Is(err, wire.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := ans.GetInode().GetInode().GetAttr().GetIno()
	ans, err = ask(ctx, a.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: dir}}})
	if errors.Is(err, wire.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range ans.GetDir().GetEntries() {
		if err := a.unlink(ctx, dir, d.Name, false); err != nil {
			return err
		}
	}
	return a.unlink(ctx, wire.OutputsIno, name, true)
}

func (a *Agent) unlink(ctx context.Context, dir uint64, name string, isDir bool) error {
	_, err := a.cfg.Meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: dir, Name: name, Dir: isDir}}})
	if errors.Is(err, wire.NotFound) {
		return nil
	}
	return err
}

// sweep removes what attempts of this node have left behind: none of them can
// be running now.
func (a *Agent) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	mine := "attempt." + strconv.FormatUint(uint64(a.cfg.Node), 10) + "."
	for after := uint64(0); ; {
		ans, err := ask(ctx, a.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: wire.OutputsIno, After: after}}})
		if err != nil {
			a.log.Warn("old attempts could not be looked for", "err", err)
			return
		}
		for _, d := range ans.GetDir().GetEntries() {
			after = d.Cookie
			if strings.HasPrefix(d.Name, mine) {
				if err := a.removeDir(ctx, d.Name); err != nil {
					a.log.Warn("an old attempt could not be removed", "dir", d.Name, "err", err)
				}
			}
		}
		if ans.GetDir().GetEof() || len(ans.GetDir().GetEntries()) == 0 {
			return
		}
	}
}
