package offload

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// OverlayConfig is what the overlay of one mount needs.
type OverlayConfig struct {
	Files Files
	Meta  Meta
	Host  string // the label host of what runs tasks on the mount's host; "": not known
	Log   *slog.Logger
}

// Overlay shows jobs below /.compute, and takes job files from its queue: the
// synthetic part of a mount (see package fs). All methods may be called
// concurrently.
type Overlay struct {
	submit Submitter
	meta   Meta
	log    *slog.Logger
	since  int64 // ns; times of what has no time of its own

	rules rules
	host  string // of this mount

	mu   sync.Mutex
	jobs map[uint64]shape // guarded by mu; at most maxShapes
}

// shape is what attributes need to know of a job; of these only tasks changes.
type shape struct {
	name      string
	uid, gid  uint32
	out       uint64
	tasks     uint32
	submitted int64
	seen      wire.Visibility
}

const maxShapes = 16384

// NewOverlay makes the overlay of one mount.
func NewOverlay(cfg OverlayConfig) *Overlay {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Overlay{
		submit: Submitter{Files: cfg.Files, Meta: cfg.Meta},
		meta:   cfg.Meta,
		host:   cfg.Host,
		log:    log,
		since:  time.Now().UnixNano(),
		jobs:   map[uint64]shape{},
	}
}

func gone(op, object string) error {
	return &wire.Error{Code: wire.NotFound, Op: op, Object: object}
}

// Lookup implements fs.Overlay.
func (o *Overlay) Lookup(ctx context.Context, cred *wire.Cred, dir uint64, name string) (*wire.Attr, error) {
	if dir == wire.ComputeIno {
		if i := slices.Index(topNames, name); i >= 0 {
			return o.GetAttr(ctx, topNodes[i].ino())
		}
		return nil, gone("lookup", name)
	}
	d, ok := parseNode(dir)
	if !ok {
		return nil, gone("lookup", name)
	}
	switch d.kind {
	case kindJobs:
		id, err := strconv.ParseUint(name, 10, 64)
		if err != nil || strconv.FormatUint(id, 10) != name {
			return nil, gone("lookup", name)
		}
		return o.GetAttr(ctx, node{kind: kindJob, job: id}.ino())
	case kindByName:
		job, err := findJob(ctx, o.meta, name)
		if err != nil {
			return nil, err
		}
		if job == nil {
			return nil, gone("lookup", name)
		}
		o.learn(job)
		return o.GetAttr(ctx, node{kind: kindLink, job: job.Id}.ino())
	case kindErrors:
		all, err := o.refusals(ctx, refusalsOf(cred, name))
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, gone("lookup", name)
		}
		return o.GetAttr(ctx, low(kindError, all[len(all)-1].Number).ino())
	case kindHosts:
		nodes, err := o.agents(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if n.Node.Name == name {
				return o.GetAttr(ctx, low(kindHost, uint64(n.Node.Id)).ino())
			}
		}
		return nil, gone("lookup", name)
	case kindHost:
		if i := slices.Index(hostFiles, name); i >= 0 {
			return o.GetAttr(ctx, low(kindHostFile0+kind(i), d.low()).ino())
		}
		return nil, gone("lookup", name)
	case kindJob:
		if i := slices.Index(jobFiles, name); i >= 0 {
			return o.GetAttr(ctx, node{kind: kindJobFile0 + kind(i), job: d.job}.ino())
		}
		switch name {
		case "tasks":
			return o.GetAttr(ctx, node{kind: kindTasks, job: d.job}.ino())
		case "out":
			s, err := o.shape(ctx, d.job)
			if err != nil {
				return nil, err
			}
			if s.out == 0 {
				return nil, gone("lookup", name)
			}
			return &wire.Attr{Ino: s.out, Mode: typeDir | 0o200 | readable(s.seen, true), Nlink: 2, Uid: s.uid, Gid: s.gid}, nil
		}
		return nil, gone("lookup", name)
	case kindTasks:
		n, err := strconv.ParseUint(name, 10, taskBits)
		if err != nil || strconv.FormatUint(n, 10) != name {
			return nil, gone("lookup", name)
		}
		return o.GetAttr(ctx, node{kind: kindTask, job: d.job, task: uint32(n)}.ino())
	case kindTask:
		if i := slices.Index(taskFiles, name); i >= 0 {
			return o.GetAttr(ctx, node{kind: kindTaskFile0 + kind(i), job: d.job, task: d.task}.ino())
		}
		return nil, gone("lookup", name)
	}
	return nil, &wire.Error{Code: wire.NotDir, Op: "lookup", Object: name}
}

// GetAttr implements fs.Overlay.
func (o *Overlay) GetAttr(ctx context.Context, ino uint64) (*wire.Attr, error) {
	n, ok := parseNode(ino)
	if !ok {
		return nil, &wire.Error{Code: wire.Stale, Op: "getattr", Object: strconv.FormatUint(ino, 10)}
	}
	a := &wire.Attr{Ino: ino, Nlink: 1}
	at := o.since
	switch k := n.kind; {
	case k == kindJobs, k == kindByName, k == kindErrors, k == kindHosts:
		a.Mode, a.Nlink = typeDir|0o555, 2
	case n == apiNode:
		a.Mode = typeReg | 0o666
	case n == accountingNode: // what is in it depends on who reads
		a.Mode = typeReg | 0o444
	case k == kindReadme:
		a.Mode, a.Size = typeReg|0o444, uint64(len(readme))
	case k == kindHost:
		a.Mode, a.Nlink = typeDir|0o555, 2
	case k >= kindHostFile0 && k < kindHostFile0+kind(len(hostFiles)):
		a.Mode = typeReg | 0o444
	case k == kindError:
		r, err := o.refusal(ctx, &wire.ListRefusals{Number: n.low()})
		if err != nil {
			return nil, err
		}
		a.Mode, a.Uid, a.Gid, a.Size, at = typeReg|0o400, r.Uid, r.Gid, uint64(len(r.Text)+1), r.TimeNs
	case k >= kindJob && k < kindError:
		s, err := o.shape(ctx, n.job)
		if err != nil {
			return nil, err
		}
		if k >= kindTask && n.task >= s.tasks {
			// The reduce task comes later than the others.
			if s, err = o.fresh(ctx, n.job); err != nil {
				return nil, err
			}
			if n.task >= s.tasks {
				return nil, gone("getattr", fmt.Sprintf("task %d of job %d", n.task, n.job))
			}
		}
		a.Uid, a.Gid, at = s.uid, s.gid, s.submitted
		switch {
		case k == kindJob, k == kindTasks, k == kindTask:
			a.Mode, a.Nlink = typeDir|readable(s.seen, true), 2
		case k == kindLink:
			a.Mode, a.Size = typeLink|0o777, uint64(len(linkTarget(n.job)))
		case k == kindJobFile0: // ctl
			a.Mode = typeReg | 0o600
		case k >= kindTaskFile0 && k < kindTaskFile0+kind(len(taskFiles)) && isLog(taskFiles[k-kindTaskFile0]):
			a.Mode = typeReg | 0o444
			v := &logView{o: o, job: n.job, n: n.task, stream: taskFiles[k-kindTaskFile0]}
			if at, err = v.attr(ctx, a); err != nil {
				return nil, err
			}
		default:
			a.Mode = typeReg | readable(s.seen, false)
		}
	default:
		return nil, &wire.Error{Code: wire.Stale, Op: "getattr", Object: strconv.FormatUint(ino, 10)}
	}
	a.AtimeNs, a.MtimeNs, a.CtimeNs, a.BtimeNs = at, at, at, at
	return a, nil
}

// ReadDir implements fs.Overlay.
func (o *Overlay) ReadDir(ctx context.Context, cred *wire.Cred, dir uint64) ([]*wire.DirEntry, error) {
	if dir == wire.ComputeIno {
		var out []*wire.DirEntry
		for i, name := range topNames {
			t := uint32(typeDir)
			if !topNodes[i].isDir() {
				t = typeReg
			}
			out = append(out, entry(name, topNodes[i], t))
		}
		return out, nil
	}
	d, ok := parseNode(dir)
	if !ok {
		return nil, gone("readdir", strconv.FormatUint(dir, 10))
	}
	var out []*wire.DirEntry
	switch d.kind {
	case kindJobs, kindByName:
		err := o.eachJob(ctx, func(j *wire.Job) {
			if d.kind == kindJobs {
				out = append(out, entry(strconv.FormatUint(j.Id, 10), node{kind: kindJob, job: j.Id}, typeDir))
			} else {
				out = append(out, entry(j.Name, node{kind: kindLink, job: j.Id}, typeLink))
			}
		})
		if err != nil {
			return nil, err
		}
	case kindErrors:
		all, err := o.refusals(ctx, refusalsOf(cred, ""))
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{} // root sees the last of each name
		for _, r := range slices.Backward(all) {
			if !seen[r.Name] {
				seen[r.Name] = true
				out = append(out, entry(r.Name, low(kindError, r.Number), typeReg))
			}
		}
		slices.Reverse(out)
	case kindHosts:
		nodes, err := o.agents(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			out = append(out, entry(n.Node.Name, low(kindHost, uint64(n.Node.Id)), typeDir))
		}
	case kindHost:
		for i, name := range hostFiles {
			out = append(out, entry(name, low(kindHostFile0+kind(i), d.low()), typeReg))
		}
	case kindJob:
		s, err := o.shape(ctx, d.job)
		if err != nil {
			return nil, err
		}
		for i, name := range jobFiles {
			out = append(out, entry(name, node{kind: kindJobFile0 + kind(i), job: d.job}, typeReg))
		}
		out = append(out, entry("tasks", node{kind: kindTasks, job: d.job}, typeDir))
		if s.out != 0 {
			out = append(out, &wire.DirEntry{Name: "out", Ino: s.out, Type: typeDir})
		}
	case kindTasks:
		s, err := o.fresh(ctx, d.job)
		if err != nil {
			return nil, err
		}
		for i := range s.tasks {
			out = append(out, entry(strconv.Itoa(int(i)), node{kind: kindTask, job: d.job, task: i}, typeDir))
		}
	case kindTask:
		for i, name := range taskFiles {
			out = append(out, entry(name, node{kind: kindTaskFile0 + kind(i), job: d.job, task: d.task}, typeReg))
		}
	default:
		return nil, &wire.Error{Code: wire.NotDir, Op: "readdir", Object: strconv.FormatUint(dir, 10)}
	}
	slices.SortFunc(out, func(a, b *wire.DirEntry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func entry(name string, n node, t uint32) *wire.DirEntry {
	return &wire.DirEntry{Name: name, Ino: n.ino(), Type: t}
}

// ReadLink implements fs.Overlay.
func (o *Overlay) ReadLink(_ context.Context, ino uint64) (string, error) {
	if n, ok := parseNode(ino); ok && n.kind == kindLink {
		return linkTarget(n.job), nil
	}
	return "", &wire.Error{Code: wire.Invalid, Op: "readlink", Object: strconv.FormatUint(ino, 10)}
}

func linkTarget(job uint64) string { return "../jobs/" + strconv.FormatUint(job, 10) }

// Enqueue implements fs.Overlay: the file ino is, or is about to be, the entry
// name of the queue. Names that begin with a dot are left alone: they are other
// programs' temporary files.
func (o *Overlay) Enqueue(ctx context.Context, cred *wire.Cred, name string, ino uint64) error {
	if strings.HasPrefix(name, ".") {
		return nil
	}
	key, ok := JobName(name)
	if !ok {
		err := problem(wire.Invalid, name, 0, "a job file's name ends in .yaml; %q does not", name)
		o.refuse(ctx, cred, name, ino, err)
		return err
	}
	id, created, err := o.enqueue(ctx, cred, key, ino)
	if err != nil {
		o.refuse(ctx, cred, key, ino, err)
		return err
	}
	if !created {
		o.accept(ctx, cred, key, ino)
	}
	o.log.Info("job submitted", "job", id, "name", key)
	return nil
}

func (o *Overlay) enqueue(ctx context.Context, cred *wire.Cred, name string, ino uint64) (id uint64, created bool, err error) {
	spec, mode, err := readFile(ctx, o.submit.Files, ino, jobfile.MaxFile)
	if wire.CodeOf(err) == wire.FileTooBig {
		return 0, false, problem(wire.Invalid, name, 0, "a job file has at most %d KiB", jobfile.MaxFile>>10)
	}
	if err != nil {
		return 0, false, problem(wire.CodeOf(err), name, 0, "reading the job file: %v", err)
	}
	return o.submit.submit(ctx, cred, name, spec, addition{about: []uint64{ino}, mode: mode})
}

// Dequeue implements fs.Overlay: removing the queue's entry cancels the job, if
// it has not ended.
func (o *Overlay) Dequeue(ctx context.Context, cred *wire.Cred, name string) error {
	key, ok := JobName(name)
	if !ok {
		return nil
	}
	o.accept(ctx, cred, key, 0)
	job, err := findJob(ctx, o.meta, key)
	if err != nil || job == nil || Ended(job.State) {
		return err
	}
	return o.control(ctx, cred, job, "cancel", "its file was removed from the queue")
}

// learn remembers the shape of a job.
func (o *Overlay) learn(j *wire.Job) shape {
	s := shape{j.Name, j.Cred.GetUid(), j.Cred.GetGid(), j.OutDir, j.Tasks, j.SubmittedNs, j.Visibility}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.jobs) >= maxShapes {
		clear(o.jobs)
	}
	o.jobs[j.Id] = s
	return s
}

// shape returns what is remembered of a job; meta is asked the first time.
func (o *Overlay) shape(ctx context.Context, id uint64) (shape, error) {
	o.mu.Lock()
	s, ok := o.jobs[id]
	o.mu.Unlock()
	if ok {
		return s, nil
	}
	return o.fresh(ctx, id)
}

func (o *Overlay) fresh(ctx context.Context, id uint64) (shape, error) {
	j, _, err := getJob(ctx, o.meta, id, false)
	if err != nil {
		return shape{}, err
	}
	return o.learn(j), nil
}

// eachJob calls f with every job, by number.
func (o *Overlay) eachJob(ctx context.Context, f func(*wire.Job)) error {
	return EachJob(ctx, o.meta, func(j *wire.Job) error {
		o.learn(j)
		f(j)
		return nil
	})
}

// agents lists the hosts that run tasks, by name.
func (o *Overlay) agents(ctx context.Context) ([]*wire.NodeStatus, error) {
	ans, err := ask(ctx, o.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ListNodes{ListNodes: &wire.ListNodes{}}})
	if err != nil {
		return nil, err
	}
	var out []*wire.NodeStatus
	for _, n := range ans.GetNodes().GetNodes() {
		if n.GetNode().GetKind() == "agent" {
			out = append(out, n)
		}
	}
	return out, nil
}
