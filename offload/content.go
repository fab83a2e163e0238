package offload

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// OverlayFor is an Overlay whose Open returns the file type of another package,
// an interface that OverlayFile implements.
type OverlayFor[F any] struct{ *Overlay }

// Open is Overlay.Open.
func (o OverlayFor[F]) Open(ctx context.Context, cred *wire.Cred, ino uint64, write bool) (F, error) {
	f, err := o.Overlay.Open(ctx, cred, ino, write)
	if err != nil {
		var none F
		return none, err
	}
	return any(f).(F), nil
}

// OverlayFile is one open of a synthetic file; fs.OverlayFile has the same
// methods.
type OverlayFile = interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error) // io.EOF at the end
	Write(ctx context.Context, p []byte) (int, error)
	Close() error
}

// Open implements fs.Overlay.
func (o *Overlay) Open(ctx context.Context, cred *wire.Cred, ino uint64, write bool) (OverlayFile, error) {
	n, ok := parseNode(ino)
	if !ok {
		return nil, &wire.Error{Code: wire.Stale, Op: "open", Object: strconv.FormatUint(ino, 10)}
	}
	if n.kind == kindJobFile0 { // ctl
		job, _, err := getJob(ctx, o.meta, n.job, false)
		if err != nil {
			return nil, err
		}
		if !owns(cred, job) {
			return nil, problem(wire.Denied, job.Name, 0, "job %d belongs to uid %d", job.Id, job.Cred.GetUid())
		}
		return &ctlFile{o: o, cred: cred, job: job}, nil
	}
	if n == apiNode {
		return &requestFile{o: o, cred: cred}, nil
	}
	if write {
		return nil, &wire.Error{Code: wire.Denied, Op: "open", Object: strconv.FormatUint(ino, 10)}
	}
	if n == accountingNode {
		return newAccountingFile(o.meta, cred), nil
	}
	if err := o.mayOpen(ctx, cred, n); err != nil {
		return nil, err
	}
	if n.kind >= kindJobFile0 && n.kind < kindJobFile0+kind(len(jobFiles)) && jobFiles[n.kind-kindJobFile0] == "wait" {
		return &waitFile{meta: o.meta, job: n.job}, nil
	}
	if n.kind >= kindTaskFile0 && n.kind < kindTaskFile0+kind(len(taskFiles)) {
		if what := taskFiles[n.kind-kindTaskFile0]; isLog(what) {
			return &logView{o: o, job: n.job, n: n.task, stream: what}, nil
		}
	}
	text, err := o.content(ctx, n)
	if err != nil {
		return nil, err
	}
	return textFile(text), nil
}

// mayOpen refuses what a job says of itself to whom its owner has not let see it. The
// kernel looks at the permissions, too; but not who asks with another's rights, as a
// server of files does.
func (o *Overlay) mayOpen(ctx context.Context, cred *wire.Cred, n node) error {
	switch k := n.kind; {
	case k == kindError:
		r, err := o.refusal(ctx, &wire.ListRefusals{Number: n.low()})
		if err != nil {
			return err
		}
		if uid := cred.GetUid(); uid != 0 && uid != r.Uid {
			return &wire.Error{Code: wire.Denied, Op: "open", Object: "errors/" + r.Name}
		}
	case k >= kindJob && k < kindError:
		s, err := o.shape(ctx, n.job)
		if err != nil {
			return err
		}
		if !s.visible(cred) {
			return problem(wire.Denied, s.name, 0, "job %d belongs to uid %d", n.job, s.uid)
		}
	}
	return nil
}

// content is what a synthetic file says now.
func (o *Overlay) content(ctx context.Context, n node) (string, error) {
	switch k := n.kind; {
	case k == kindReadme:
		return readme, nil
	case k == kindError:
		r, err := o.refusal(ctx, &wire.ListRefusals{Number: n.low()})
		if err != nil {
			return "", err
		}
		return r.Text + "\n", nil
	case k >= kindJobFile0 && k < kindJobFile0+kind(len(jobFiles)):
		what := jobFiles[k-kindJobFile0]
		job, tasks, err := getJob(ctx, o.meta, n.job, needsTasks[what])
		if err != nil {
			return "", err
		}
		if what == "failed" {
			if _, tasks, err = queryJob(ctx, o.meta, &wire.GetJob{Id: n.job, Tasks: true, States: []string{StateFailed}}); err != nil {
				return "", err
			}
		}
		o.learn(job)
		text := jobText(what, job, tasks, time.Now())
		switch what {
		case "plan":
			costs, err := planCosts(ctx, o.meta, job, tasks)
			return text + costs, err
		case "reason":
			wait, _ := waitText(ctx, o.meta, job) // the rest can be said without
			return strings.TrimSuffix(text, "\n") + wait + "\n", nil
		}
		return text, nil
	case k >= kindTaskFile0 && k < kindTaskFile0+kind(len(taskFiles)):
		task, err := o.task(ctx, n.job, n.task)
		if err != nil {
			return "", err
		}
		return taskText(taskFiles[k-kindTaskFile0], task, time.Now()), nil
	case k >= kindHostFile0 && k < kindHostFile0+kind(len(hostFiles)):
		agents, err := o.agents(ctx)
		if err != nil {
			return "", err
		}
		for _, a := range agents {
			if uint64(a.Node.Id) == n.low() {
				return hostText(hostFiles[k-kindHostFile0], a), nil
			}
		}
		return "", gone("open", "hosts")
	}
	return "", &wire.Error{Code: wire.IsDir, Op: "open", Object: strconv.FormatUint(n.ino(), 10)}
}

func (o *Overlay) task(ctx context.Context, job uint64, n uint32) (*wire.Task, error) {
	_, tasks, err := queryJob(ctx, o.meta, &wire.GetJob{Id: job, Tasks: true, First: n, Count: 1})
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 || tasks[0].N != n {
		return nil, gone("open", fmt.Sprintf("task %d of job %d", n, job))
	}
	return tasks[0], nil
}

// isLog says whether a file of a task is what it has printed.
func isLog(what string) bool { return what == "stdout" || what == "stderr" }

// textFile is a text that was taken when the file was opened.
type textFile string

func (t textFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(t)) {
		return 0, io.EOF
	}
	n := copy(p, t[max(off, 0):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (t textFile) Write(context.Context, []byte) (int, error) {
	return 0, &wire.Error{Code: wire.Denied, Op: "write"}
}

func (t textFile) Close() error { return nil }

// waitFile blocks its first read until the job has ended, then says how.
type waitFile struct {
	meta Meta
	job  uint64

	mu   sync.Mutex
	text textFile // guarded by mu; "" until the job has ended
}

func (w *waitFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	w.mu.Lock()
	text := w.text
	w.mu.Unlock()
	if text == "" {
		job, err := WaitJob(ctx, w.meta, w.job)
		if err != nil {
			return 0, err
		}
		text = textFile(job.State + ": " + job.Reason + "\n")
		w.mu.Lock()
		w.text = text
		w.mu.Unlock()
	}
	return text.ReadAt(ctx, p, off)
}

func (w *waitFile) Write(context.Context, []byte) (int, error) {
	return 0, &wire.Error{Code: wire.Denied, Op: "write"}
}

func (w *waitFile) Close() error { return nil }

// WaitJob returns the job once it has ended, or the context's error.
func WaitJob(ctx context.Context, m Meta, id uint64) (*wire.Job, error) {
	pause := 10 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		job, _, err := getJob(ctx, m, id, false)
		if err != nil {
			return nil, err
		}
		if Ended(job.State) {
			return job, nil
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "wait", Object: fmt.Sprintf("job %d", id), Err: ctx.Err()}
		}
		pause = min(pause*3/2, 400*time.Millisecond)
	}
}

// ctlFile takes one verb a write.
type ctlFile struct {
	o    *Overlay
	cred *wire.Cred
	job  *wire.Job
}

func (c *ctlFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return textFile("write one of: "+verbs+"\n").ReadAt(ctx, p, off)
}

func (c *ctlFile) Write(ctx context.Context, p []byte) (int, error) {
	verb := strings.TrimSpace(string(p))
	if verb == "" {
		return len(p), nil
	}
	if err := c.o.control(ctx, c.cred, c.job, verb, "written to ctl"); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *ctlFile) Close() error { return nil }

func owns(cred *wire.Cred, job *wire.Job) bool {
	return cred.GetUid() == 0 || cred.GetUid() == job.GetCred().GetUid()
}

// control carries out a verb of ctl.
func (o *Overlay) control(ctx context.Context, cred *wire.Cred, job *wire.Job, verb, why string) error {
	if !owns(cred, job) {
		return problem(wire.Perm, job.Name, 0, "job %d belongs to uid %d", job.Id, job.Cred.GetUid())
	}
	by := fmt.Sprintf("uid %d", cred.GetUid())
	word, arg, _ := strings.Cut(verb, " ")
	arg = strings.TrimSpace(arg)
	if arg != "" && word != "priority" {
		return problem(wire.Invalid, job.Name, 0, "%q: %s takes no argument", verb, word)
	}
	switch word {
	case "cancel":
		return Cancel(ctx, o.meta, cred, job.Id, fmt.Sprintf("cancelled by %s: %s", by, why))
	case "retry":
		return Retry(ctx, o.meta, cred, job.Id, "retried by "+by)
	case "pause":
		return Pause(ctx, o.meta, cred, job.Id, "paused by "+by)
	case "resume":
		return Resume(ctx, o.meta, cred, job.Id, "resumed by "+by)
	case "priority":
		n, err := strconv.Atoi(arg)
		if err != nil || n < -jobfile.MaxPriority || n > jobfile.MaxPriority {
			return problem(wire.Invalid, job.Name, 0, "priority takes a number from %d to %d, not %q", -jobfile.MaxPriority, jobfile.MaxPriority, arg)
		}
		return SetPriority(ctx, o.meta, cred, job.Id, n, fmt.Sprintf("priority %d, set by %s", n, by))
	}
	return problem(wire.Invalid, job.Name, 0, "%q is not something a job can be told: %s", verb, verbs)
}

// verbs is what ctl takes.
const verbs = "cancel, retry, pause, resume, priority N"
