package offload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"quernfs/internal/wire"
)

var errTooMuch = errors.New("it wrote more than is allowed")

func tooMuch(limit int64) error {
	return fmt.Errorf("%w (%s: output_limit in the job file, or --output-limit of the host's agent)", errTooMuch, size(uint64(limit)))
}

// taskOutput is the file that a task's standard output goes to. A small one is
// no file until the report of the task's end makes it. One goroutine uses it.
type taskOutput struct {
	ctx   context.Context
	run   *attemptRun
	name  string
	file  File // nil: not made
	buf   []byte
	size  int64 // bytes written so far, buffered ones included
	limit int64
	tail  io.Writer // keeps the last of it
}

const (
	outputBuffer = 1 << 20
	smallOutput  = wire.InlineMax // goes with the report
)

func (r *attemptRun) output(ctx context.Context, name string) *taskOutput {
	return &taskOutput{ctx: ctx, run: r, name: name, limit: r.outputLimit, tail: r.stdout}
}

// attemptDir makes the directory of the attempt, if it is not there yet. One of
// the same attempt is left from an agent that died in between.
func (r *attemptRun) attemptDir(ctx context.Context) (uint64, error) {
	if r.dir != 0 {
		return r.dir, nil
	}
	files, name := r.agent.cfg.Files, attemptName(r.agent.cfg.Node, r.task)
	dir, err := files.Mkdir(ctx, wire.OutputsIno, name, 0o700)
	if errors.Is(err, wire.Exists) {
		r.agent.sweepOne(ctx, name)
		dir, err = files.Mkdir(ctx, wire.OutputsIno, name, 0o700)
	}
	if err != nil {
		return 0, fmt.Errorf("making the attempt's directory: %w", err)
	}
	r.dir = dir.Attr.Ino
	return r.dir, nil
}

// create makes the output file in the attempt directory.
func (r *attemptRun) create(ctx context.Context, name string) (File, error) {
	dir, err := r.attemptDir(ctx)
	if err != nil {
		return nil, err
	}
	f, err := r.agent.cfg.Files.Create(ctx, dir, name, resultMode(r.job))
	if err != nil {
		return nil, fmt.Errorf("making the output file: %w", err)
	}
	return f, nil
}

func (o *taskOutput) Write(p []byte) (int, error) {
	if o.size+int64(len(p)) > o.limit {
		return 0, tooMuch(o.limit)
	}
	_, _ = o.tail.Write(p)
	_, _ = o.run.find.Write(p)
	o.size += int64(len(p))
	o.buf = append(o.buf, p...)
	if len(o.buf) >= outputBuffer {
		return len(p), o.flush(o.ctx)
	}
	return len(p), nil
}

func (o *taskOutput) flush(ctx context.Context) error {
	if o.file == nil {
		var err error
		if o.file, err = o.run.create(ctx, o.name); err != nil {
			return err
		}
	}
	off := o.size - int64(len(o.buf))
	for len(o.buf) > 0 {
		n, err := o.file.WriteAt(ctx, o.buf, off)
		if err != nil {
			return err
		}
		if n <= 0 {
			return wire.Errorf(wire.Internal, "write", o.name, "nothing was written")
		}
		o.buf, off = o.buf[n:], off+int64(n)
	}
	o.buf = nil
	return nil
}

// finish makes the output durable, or ready to go with the report.
func (o *taskOutput) finish(ctx context.Context) error {
	if o.file == nil && o.size <= smallOutput {
		o.run.small = append(o.run.small, &wire.OutputFile{Name: o.name, Content: o.buf})
		return nil
	}
	if err := o.flush(ctx); err != nil {
		return err
	}
	if err := o.file.Flush(ctx); err != nil {
		return err
	}
	f := o.file
	o.file = nil
	ino := f.Inode().GetAttr().GetIno()
	if err := f.Close(); err != nil {
		return err
	}
	return o.run.own(ctx, ino)
}

// drop forgets what was written: it is not to be an output.
func (o *taskOutput) drop(ctx context.Context) error {
	o.buf = nil
	if o.file == nil {
		return nil
	}
	o.close()
	return o.run.agent.cfg.Files.Remove(ctx, o.run.dir, o.name, false)
}

func (o *taskOutput) close() {
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
}

// sweepOne removes a directory that an earlier run of the same attempt left.
func (a *Agent) sweepOne(ctx context.Context, name string) {
	ans, err := ask(ctx, a.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: wire.OutputsIno, Name: name}}})
	if err == nil {
		err = a.removeDir(ctx, ans.GetInode().GetInode().GetAttr().GetIno(), name)
	}
	if err != nil && !isGone(err) {
		a.log.Warn("an old attempt could not be removed", "dir", name, "err", err)
	}
}

// own gives an output to the job's owner.
func (r *attemptRun) own(ctx context.Context, ino uint64) error {
	cred := r.job.GetCred()
	if cred.GetUid() == 0 && cred.GetGid() == 0 {
		return nil
	}
	return r.agent.cfg.Files.Chown(ctx, ino, cred.GetUid(), cred.GetGid())
}

// remove deletes the attempt directory with what is still in it. What fails is
// swept up when the agent starts again.
func (r *attemptRun) remove() {
	if r.dir == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	name := attemptName(r.agent.cfg.Node, r.task)
	if err := r.agent.removeDir(ctx, r.dir, name); err != nil {
		r.agent.log.Warn("an attempt's directory is left behind", "dir", name, "err", err)
	}
}

// removeDir deletes an attempt directory.
func (a *Agent) removeDir(ctx context.Context, ino uint64, name string) error {
	return a.removeTree(ctx, wire.OutputsIno, ino, name)
}

// removeTree deletes the directory ino, which is called name in dir, with all
// that is in it.
func (a *Agent) removeTree(ctx context.Context, dir, ino uint64, name string) error {
	entries, err := a.cfg.Files.ReadDirInode(ctx, ino)
	if err != nil && !isGone(err) {
		return err
	}
	for _, d := range entries {
		if d.Name == "." || d.Name == ".." {
			continue
		}
		if isDir(d.Type) {
			err = a.removeTree(ctx, ino, d.Ino, d.Name)
		} else {
			err = a.cfg.Files.Remove(ctx, ino, d.Name, false)
		}
		if err != nil && !isGone(err) {
			return err
		}
	}
	if err := a.cfg.Files.Remove(ctx, dir, name, true); err != nil && !isGone(err) {
		return err
	}
	return nil
}

func isGone(err error) bool { return errors.Is(err, wire.NotFound) || errors.Is(err, wire.Stale) }

// sweep removes what attempts of this node have left behind: none of them can
// be running now.
func (a *Agent) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	mine := "attempt." + strconv.FormatUint(uint64(a.cfg.Node), 10) + "."
	entries, err := a.cfg.Files.ReadDirInode(ctx, wire.OutputsIno)
	if err != nil {
		a.log.Warn("old attempts could not be looked for", "err", err)
	}
	for _, d := range entries {
		if !strings.HasPrefix(d.Name, mine) {
			continue
		}
		if err := a.removeDir(ctx, d.Ino, d.Name); err != nil {
			a.log.Warn("an old attempt could not be removed", "dir", d.Name, "err", err)
		}
	}
}
