package offload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
	"quernfs/offload/sandbox"
)

// maxOutputs bounds the files and directories that one task may leave: one
// command of meta puts all of them into place.
const maxOutputs = 10_000

// left is one entry below /out.
type left struct {
	rel  string // its path
	mode fs.FileMode
	size int64
}

// leftOutputs are the entries of /out, a directory before what is in it. Nothing
// writes there any more.
func leftOutputs(dir string) (all []left, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		switch {
		case err != nil:
			return err
		case !fi.Mode().IsRegular() && !fi.IsDir():
			return &outputError{fmt.Sprintf("/out/%s is neither a file nor a directory, and so cannot be an output", rel)}
		case len(all) == maxOutputs:
			return &outputError{fmt.Sprintf("it left more than %d files in /out", maxOutputs)}
		}
		all = append(all, left{rel, fi.Mode(), fi.Size()})
		return nil
	})
	return all, err
}

// collect makes outputs of what a program has left: of the files in /out, or,
// if there are none, of its standard output. name is what the task's result is
// called, elsewhere says that it goes to a directory that the job names: there
// the task leaves nothing else.
func (r *attemptRun) collect(ctx context.Context, dir sandbox.Dir, phase, name string, elsewhere bool, stdout *taskOutput) error {
	all, err := leftOutputs(dir.Out())
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return stdout.finish(ctx)
	}
	if err := stdout.drop(ctx); err != nil {
		return fmt.Errorf("removing the standard output: %w", err)
	}
	r.report.BytesOut = 0
	for _, l := range all {
		if l.mode.IsRegular() {
			r.report.BytesOut += uint64(l.size)
		}
	}
	single := len(all) == 1 && all[0].mode.IsRegular()
	switch {
	case phase == "map":
		// The reduce step reads one file of each task.
		if !single {
			return &outputError{fmt.Sprintf("it left %d files and directories in /out; before a reduce step it must be one file", len(all))}
		}
		return r.store(ctx, dir.Out(), all[0], 0, name)
	case elsewhere && single:
		return r.store(ctx, dir.Out(), all[0], 0, name)
	case elsewhere || phase == "single" && r.job.Tasks > 1:
		return r.storeAll(ctx, dir.Out(), all, name)
	}
	return r.storeAll(ctx, dir.Out(), all, "")
}

// storeAll stores everything below a directory of the attempt called name, or
// in the attempt's own.
func (r *attemptRun) storeAll(ctx context.Context, from string, all []left, name string) error {
	top := uint64(0) // not made before something needs it
	if name != "" {
		var err error
		if top, err = r.mkdir(ctx, 0, name, dirMode(resultMode(r.job))); err != nil {
			return badOutput(name, err)
		}
	}
	dirs := map[string]uint64{".": top}
	for _, l := range all {
		parent, name := dirs[filepath.Dir(l.rel)], filepath.Base(l.rel)
		if l.mode.IsDir() {
			ino, err := r.mkdir(ctx, parent, name, uint32(l.mode.Perm())&dirMode(resultMode(r.job))|0o700)
			if err != nil {
				return badOutput(l.rel, err)
			}
			dirs[l.rel] = ino
			continue
		}
		if err := r.store(ctx, from, l, parent, name); err != nil {
			return err
		}
	}
	return nil
}

// parent is the directory ino, the attempt's own if it is 0.
func (r *attemptRun) parent(ctx context.Context, ino uint64) (uint64, error) {
	if ino != 0 {
		return ino, nil
	}
	return r.attemptDir(ctx)
}

func (r *attemptRun) mkdir(ctx context.Context, parent uint64, name string, mode uint32) (uint64, error) {
	parent, err := r.parent(ctx, parent)
	if err != nil {
		return 0, err
	}
	in, err := r.agent.cfg.Files.Mkdir(ctx, parent, name, mode)
	if err != nil {
		return 0, err
	}
	return in.Attr.Ino, r.own(ctx, in.Attr.Ino)
}

// store copies one file into the filesystem: into the directory parent (0: the
// attempt's own) under name. A small one at the top goes with the report.
func (r *attemptRun) store(ctx context.Context, from string, l left, parent uint64, name string) (err error) {
	local, err := os.Open(filepath.Join(from, l.rel))
	if err != nil {
		return err
	}
	defer local.Close()
	if parent == 0 && l.size <= smallOutput && l.mode.Perm()&0o111 == 0 && len(r.small) < maxSmall {
		content, err := io.ReadAll(io.LimitReader(r.find.reader(local), smallOutput))
		r.find.end()
		if err != nil {
			return err
		}
		r.small = append(r.small, &wire.OutputFile{Name: name, Content: content})
		return nil
	}
	if parent, err = r.parent(ctx, parent); err != nil {
		return err
	}
	f, err := r.agent.cfg.Files.Create(ctx, parent, name, resultMode(r.job)|uint32(l.mode.Perm())&0o111&dirMode(resultMode(r.job)))
	if err != nil {
		return badOutput(l.rel, err)
	}
	ino := f.Inode().GetAttr().GetIno()
	err = r.copyData(ctx, f, local, l.size)
	r.find.end()
	if err == nil {
		err = f.Flush(ctx)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return badOutput(l.rel, err)
	}
	return r.own(ctx, ino)
}

// copyData copies a local file of size bytes, and leaves its holes out: they are holes
// of the copy.
func (r *attemptRun) copyData(ctx context.Context, to File, from *os.File, size int64) error {
	buf := make([]byte, outputBuffer)
	w := &fileWriter{ctx, to, 0}
	for w.off < size {
		data, err := from.Seek(w.off, unix.SEEK_DATA)
		hole := size
		switch {
		case errors.Is(err, unix.ENXIO): // no more of it
			data = size
		case err != nil:
			return err
		default:
			if hole, err = from.Seek(data, unix.SEEK_HOLE); err != nil {
				return err
			}
		}
		r.find.zeros(data - w.off)
		if data >= size {
			// A file ends with a byte: what lies before it is a hole of the copy.
			w.off = size - 1
			_, err := w.Write([]byte{0})
			return err
		}
		w.off = data
		part := io.NewSectionReader(from, data, min(hole, size)-data)
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{r.find.reader(part)}, buf); err != nil {
			return err
		}
	}
	return nil
}

// maxSmall is how many files go with one report.
const maxSmall = 64

// fileWriter writes a File from its beginning.
type fileWriter struct {
	ctx context.Context
	f   File
	off int64
}

func (w *fileWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := w.f.WriteAt(w.ctx, p[n:], w.off)
		if err == nil && m <= 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return n, err
		}
		n, w.off = n+m, w.off+int64(m)
	}
	return n, nil
}
