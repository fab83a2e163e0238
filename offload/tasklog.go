package offload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/worker"
)

// The logs of a task are what it writes to its standard error, and a program to its
// standard output, too. The last tailBytes are in the task's record. A log that is
// longer, or of a task that runs for longer than logSoon, is a file besides:
//
//	out/.logs/TASK.ATTEMPT.stderr     of the job's output directory
//
// which grows while the task runs, and of which jobs/ID/tasks/N/stderr shows the
// content. It has the beginning of the log; what is more than Spec.LogLimit allows
// is left out, and so said, but for the last logTail bytes.

const (
	logDir  = ".logs"
	logSoon = 2 * time.Second // until a log is seen while the task runs, and between the steps in which it grows
	logTail = 1 << 20         // what is kept of the end of a log that is too long, at most
	logStep = 256 << 10       // a log grows at the latest when there is so much of it
	logWait = 10 * time.Second
)

// logName is what a log is called in logDir.
func logName(n, attempt uint32, stream string) string {
	return fmt.Sprintf("%d.%d.%s", n, attempt, stream)
}

// taskLog is one stream of an attempt. It may be used concurrently.
type taskLog struct {
	run    *attemptRun
	stream string // stdout or stderr
	last   *worker.Tail

	mu     sync.Mutex
	limit  int64 // of the file; 0: none is made
	total  int64
	head   []byte // follows what is stored
	stored int64
	end    []byte // the last bytes of what is beyond the head
	beyond int64  // bytes that the head had no room for
	file   File   // nil: not made
	ino    uint64
	err    error // why no more is kept
	timer  *time.Timer
	closed bool
}

func newTaskLog(r *attemptRun, stream string) *taskLog {
	return &taskLog{run: r, stream: stream, last: worker.NewTail(tailBytes)}
}

// keep has the log kept beyond its last bytes, up to a limit.
func (l *taskLog) keep(limit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.timer = time.AfterFunc(logSoon, l.grow)
}

// Bytes are the last of the log.
func (l *taskLog) Bytes() []byte { return l.last.Bytes() }

// tail is how much of the end of a log that is too long is kept.
func (l *taskLog) tail() int64 { return min(logTail, l.limit/2) }

// Write never fails: a task does not end because its log cannot be kept.
func (l *taskLog) Write(p []byte) (int, error) {
	_, _ = l.last.Write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total += int64(len(p))
	if l.limit == 0 || l.err != nil {
		return len(p), nil
	}
	room := max(0, min(int64(len(p)), l.limit-l.tail()-l.stored-int64(len(l.head))))
	l.head = append(l.head, p[:room]...)
	if rest := p[room:]; len(rest) > 0 {
		l.beyond += int64(len(rest))
		l.end = append(l.end, rest...)
		if most := int(l.tail()); len(l.end) > 2*most {
			l.end = append(l.end[:0], l.end[len(l.end)-most:]...)
		}
	}
	if len(l.head) >= logStep {
		l.store(l.head)
	}
	return len(p), nil
}

// grow stores what has come, and comes again.
func (l *taskLog) grow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.err != nil {
		return
	}
	if len(l.head) > 0 {
		l.store(l.head)
	}
	l.timer.Reset(logSoon)
}

// store appends to the file, which it makes if need be. mu is held.
func (l *taskLog) store(p []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), logWait)
	defer cancel()
	if l.file == nil {
		if l.file, l.err = l.run.createLog(ctx, logName(l.run.task.N, l.run.task.Attempt, l.stream)); l.err != nil {
			return
		}
		l.ino = l.file.Inode().GetAttr().GetIno()
	}
	w := &fileWriter{ctx, l.file, l.stored}
	n, err := w.Write(p)
	l.stored += int64(n)
	l.head = nil
	if err == nil {
		err = l.file.Flush(ctx)
	}
	l.err = err
}

// finish stores the end, and returns the file's inode, 0 if there is none, and how
// long the log is.
func (l *taskLog) finish() (ino uint64, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.ino, l.total
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	if l.limit > 0 && l.err == nil && (l.file != nil || l.total > tailBytes) {
		rest := l.head
		if n := len(l.end) - int(l.tail()); n > 0 {
			l.end = l.end[n:]
		}
		if out := l.beyond - int64(len(l.end)); out > 0 {
			rest = fmt.Appendf(rest, "\n[%d bytes are left out here: log_limit is %s]\n", out, size(uint64(l.limit)))
		}
		if rest = append(rest, l.end...); len(rest) > 0 {
			l.store(rest)
		}
	}
	if l.file != nil {
		l.err = errors.Join(l.err, l.file.Close())
		l.file = nil
	}
	if l.err != nil {
		l.run.agent.log.Warn("a log could not be kept", "job", l.run.job.Id, "task", l.run.task.N, "stream", l.stream, "err", l.err)
	}
	l.head, l.end = nil, nil
	return l.ino, l.total
}

// createLog makes the file of a log, as the job's owner's, whom alone its directory
// belongs to.
func (r *attemptRun) createLog(ctx context.Context, name string) (File, error) {
	files, dir := r.agent.cfg.Files, uint64(0)
	find := func() error {
		ans, err := ask(ctx, r.agent.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: r.job.OutDir, Name: logDir}}})
		dir = ans.GetInode().GetInode().GetAttr().GetIno()
		return err
	}
	err := find()
	if errors.Is(err, wire.NotFound) {
		var made *wire.Inode
		if made, err = files.Mkdir(ctx, r.job.OutDir, logDir, 0o700); err == nil {
			dir = made.Attr.Ino
			err = r.own(ctx, dir)
		} else if errors.Is(err, wire.Exists) {
			err = find()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making the directory for logs: %w", err)
	}
	f, err := files.Create(ctx, dir, name, 0o600)
	if errors.Is(err, wire.Exists) { // an agent that died has begun the same attempt
		if err = files.Remove(ctx, dir, name, false); err == nil {
			f, err = files.Create(ctx, dir, name, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making the file of a log: %w", err)
	}
	return f, r.own(ctx, f.Inode().GetAttr().GetIno())
}

// ownLog says whether an inode can be the log of a job: its owner could have put
// another's file in its place.
func ownLog(in *wire.Inode, job *wire.Job) bool {
	return isFile(in.GetAttr().GetMode()) && in.GetAttr().GetUid() == job.GetCred().GetUid()
}

// logView is a log as jobs/ID/tasks/N shows it: while the task runs it grows.
type logView struct {
	o      *Overlay
	job    uint64
	n      uint32
	stream string

	mu   sync.Mutex
	file File // nil: not found yet; guarded by mu
}

// now finds the file of the log, if there is one; else its text.
func (v *logView) now(ctx context.Context) (file *wire.Inode, text string, task *wire.Task, err error) {
	job, tasks, err := queryJob(ctx, v.o.meta, &wire.GetJob{Id: v.job, Tasks: true, First: v.n, Count: 1})
	if err != nil {
		return nil, "", nil, err
	}
	if len(tasks) == 0 || tasks[0].N != v.n {
		return nil, "", nil, gone("open", fmt.Sprintf("task %d of job %d", v.n, v.job))
	}
	task = tasks[0]
	text = taskText(v.stream, task, time.Now())
	ino, total := task.StderrLog, task.StderrBytes
	if v.stream == "stdout" {
		ino, total = task.StdoutLog, task.StdoutBytes
	}
	var queries []*wire.Query
	switch {
	case ino != 0:
		queries = append(queries, &wire.Query{Cred: rootCred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: ino}}})
	case total == 0 && task.Attempt != 0: // it has not reported its end, or never did
		for _, name := range []string{logDir, logName(v.n, task.Attempt, v.stream)} {
			queries = append(queries, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: job.OutDir, Name: name}}})
		}
	}
	for _, q := range queries {
		if l := q.GetLookup(); l != nil && file != nil {
			l.Parent = file.Attr.Ino
		}
		ans, err := ask(ctx, v.o.meta, q)
		if isGone(err) || errors.Is(err, wire.NotDir) {
			return nil, text, task, nil
		}
		if err != nil {
			return nil, "", nil, err
		}
		file = ans.GetInode().GetInode()
	}
	if !ownLog(file, job) {
		file = nil
	}
	return file, text, task, nil
}

func (v *logView) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.file == nil {
		file, text, _, err := v.now(ctx)
		if err != nil {
			return 0, err
		}
		if file != nil {
			v.file, err = v.o.submit.Files.OpenInode(ctx, file.Attr.Ino)
		}
		if file == nil || isGone(err) { // its owner has removed it
			return textFile(text).ReadAt(ctx, p, off)
		}
		if err != nil {
			return 0, err
		}
	}
	n, err := v.file.ReadAt(ctx, p, off)
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

func (v *logView) Write(context.Context, []byte) (int, error) {
	return 0, &wire.Error{Code: wire.Denied, Op: "write"}
}

func (v *logView) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.file == nil {
		return nil
	}
	defer func() { v.file = nil }()
	return v.file.Close()
}

// attr fills in the size of a log, and when it has grown last: by these a program
// that follows it sees that there is more.
func (v *logView) attr(ctx context.Context, a *wire.Attr) (at int64, err error) {
	file, text, task, err := v.now(ctx)
	if err != nil {
		return 0, err
	}
	a.Size, at = uint64(len(text)), max(task.StartedNs, task.EndedNs)
	if file != nil {
		a.Size, at = file.Attr.GetSize(), file.Attr.GetMtimeNs()
	}
	return at, nil
}
