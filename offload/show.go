package offload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/sandbox"
	"quernfs/offload/worker"
)

// maxShown is how many files are bound one by one; more are copied. A bind
// mount costs the more, the more there are.
const maxShown = 256

// shown is how a program finds its inputs.
type shown struct {
	run   *attemptRun
	binds []sandbox.Bind
	files []*wire.TaskInput // read in place: they must not change meanwhile
}

// show makes the inputs, and what else the job has declared, visible below /in:
// in place if this host has a mount, else as copies.
func (r *attemptRun) show(ctx context.Context, dir sandbox.Dir, spec *jobfile.Spec, x *jobfile.Exec, inputs *taskInputs) (*shown, error) {
	s := &shown{run: r}
	if mount := r.agent.mounted(); mount != "" {
		if paths := r.inPlace(spec, x); paths != nil {
			s.files = append(slices.Clone(r.task.Inputs), r.job.Binds...)
			err := s.check(ctx)
			if err == nil && s.bind(mount, paths) {
				return s, nil
			}
			var moved *movedError
			if err != nil && !errors.As(err, &moved) {
				return nil, err
			}
			s.files, s.binds = nil, nil // a copy of what it was is made
		}
	}
	list := inputs.list
	extra := &taskInputs{files: r.agent.cfg.Files}
	defer extra.close()
	n := len(list)
	list = list[:n:n]
	for i, t := range r.job.Binds {
		list = append(list, worker.Input{Path: t.Path, Size: int64(t.Size), ReadAt: func(ctx context.Context, p []byte, off int64) (int, error) {
			f, err := extra.file(ctx, i, t)
			if err != nil {
				return 0, err
			}
			return f.ReadAt(ctx, p, off)
		}})
	}
	for i, in := range list {
		if !r.agent.cfg.Exec.Host.Room(in.Size) {
			return nil, errors.New("the disk of this host has no room for a copy of the inputs")
		}
		name, err := stage(ctx, dir.In(), in)
		if err != nil {
			return nil, err
		}
		if i < n { // the standard input need not fetch it again
			inputs.list[i].ReadAt = localFile(name).readAt
		}
	}
	s.binds = []sandbox.Bind{{From: dir.In(), To: "/in"}}
	return s, nil
}

// bind shows paths of the mount in place. Until they are bound somebody may put links
// in their way, which lead out of the mount, so the sandbox compares what it finds
// there with what lies there without a link. ok: that could be told of all of them.
func (s *shown) bind(mount string, paths []string) (ok bool) {
	root, err := unix.Open(mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for _, p := range paths {
		fd, err := unix.Openat2(root, strings.TrimPrefix(p, "/"), &how)
		if err != nil {
			return false
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return false
		}
		s.binds = append(s.binds, sandbox.Bind{From: filepath.Join(mount, p), To: path.Join("/in", p), Dev: st.Dev, Ino: st.Ino})
	}
	return true
}

// inPlace are the paths of the mount to bind; nil if the files have to be
// copied.
func (r *attemptRun) inPlace(spec *jobfile.Spec, x *jobfile.Exec) (paths []string) {
	if r.task.Phase == "reduce" {
		return nil
	}
	for _, t := range r.task.Inputs {
		if len(t.Ranges) > 0 {
			return nil // it is to see parts only
		}
		paths = append(paths, t.Path)
	}
	if (spec.Split == jobfile.SplitNone || spec.Array > 0) && !slices.ContainsFunc(spec.Inputs, func(in jobfile.Input) bool { return jobfile.Wild(in.Pattern) }) {
		// Everything that was named goes to this one task.
		paths = nil
		for _, in := range spec.Inputs {
			paths = append(paths, in.Pattern)
		}
	}
	for _, b := range x.Binds {
		paths = append(paths, b.Pattern)
	}
	slices.Sort(paths)
	// What lies below another is there with it.
	var out []string
	for _, p := range paths {
		if n := len(out); n > 0 && (p == out[n-1] || strings.HasPrefix(p, strings.TrimSuffix(out[n-1], "/")+"/")) {
			continue
		}
		out = append(out, p)
	}
	if len(out) > maxShown || slices.Contains(out, "/") {
		return nil
	}
	return out
}

// movedError is a path that leads to another file than it did.
type movedError struct{ changedError }

// check compares the files that are read in place with what was pinned.
func (s *shown) check(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, t := range s.files {
		g.Go(func() error {
			in, err := s.run.agent.cfg.Files.Stat(ctx, t.Path)
			switch {
			case errors.Is(err, wire.NotFound) || errors.Is(err, wire.NotDir):
				return &movedError{changedError{t.Path, true}}
			case err != nil:
				return fmt.Errorf("looking at %s: %w", t.Path, err)
			case in.GetAttr().GetIno() != t.Ino:
				return &movedError{changedError{path: t.Path}}
			case changed(in.GetAttr(), t):
				return &changedError{path: t.Path}
			}
			return nil
		})
	}
	return g.Wait()
}

// stage copies an input below dir, and returns where it is.
func stage(ctx context.Context, dir string, in worker.Input) (name string, err error) {
	name = filepath.Join(dir, filepath.FromSlash(in.Path))
	if !strings.HasPrefix(name, dir+"/") {
		return "", fmt.Errorf("an input cannot be called %q", in.Path)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if errors.Is(err, os.ErrExist) {
		return name, nil // an input that is bound, too
	}
	if err != nil {
		return "", err
	}
	err = copySparse(f, io.NewSectionReader(inputAt{ctx, in}, 0, in.Size))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("copying %s: %w", in.Path, err)
	}
	return name, nil
}

// copySparse copies a file, and leaves out what is zero throughout: a file of the
// mount that is mostly hole is to fit on the disk of the host.
func copySparse(to *os.File, from io.Reader) error {
	buf, zero := make([]byte, 256<<10), make([]byte, 256<<10)
	for off := int64(0); ; {
		n, err := io.ReadFull(from, buf)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := to.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return to.Truncate(off)
		default:
			return err
		}
	}
}

type inputAt struct {
	ctx context.Context
	in  worker.Input
}

func (r inputAt) ReadAt(p []byte, off int64) (int, error) { return r.in.ReadAt(r.ctx, p, off) }

// localFile is a staged input.
type localFile string

func (l localFile) readAt(_ context.Context, p []byte, off int64) (int, error) {
	f, err := os.Open(string(l))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}
