//go:build wasip1

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"quernfs/offload/kernels/picture"
	"quernfs/offload/kernels/task"
)

// resize makes small pictures: of one input a picture, of several, with
// params.as tar, an archive. The reduce step makes one archive of several.
func resize(out *bufio.Writer, phase string) error {
	o := picture.Options{Fit: picture.Fit(param("FIT")), Format: picture.Format(param("FORMAT"))}
	var errs [4]error
	o.Width, errs[0] = number("WIDTH", 0)
	o.Height, errs[1] = number("HEIGHT", 0)
	o.Quality, errs[2] = number("QUALITY", 0)
	o.Pixels, errs[3] = number("PIXELS", 0)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	var skip, archive bool
	for _, p := range []struct {
		name, yes, no string
		to            *bool
	}{{"ENLARGE", "true", "false", &o.Enlarge}, {"BROKEN", "skip", "fail", &skip}, {"AS", "tar", "picture", &archive}} {
		switch v := param(p.name); v {
		case "", p.no:
		case p.yes:
			*p.to = true
		default:
			return fmt.Errorf("the param %s must be %s or %s, not %q", strings.ToLower(p.name), p.no, p.yes, v)
		}
	}
	if err := o.Check(); err != nil {
		return err
	}
	switch {
	case archive && phase == "reduce":
		return joinArchives(out)
	case !archive && phase != "single":
		return errors.New("pictures cannot be put together to one: leave reduce out, or give params: {as: tar}")
	}
	var w *tar.Writer
	if archive {
		w = tar.NewWriter(out)
	}
	n, names := 0, picture.Names{}
	err := task.EachFile(func(name string, r io.Reader) error {
		if n++; n > 1 && !archive {
			return errors.New("this task has several pictures: with output: /DIRECTORY/{file} each gets a result of its own, with params: {as: tar} they get into an archive")
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		var small bytes.Buffer
		f, err := picture.Resize(&small, data, o)
		if err != nil && skip && archive {
			fmt.Fprintf(os.Stderr, "left out: %s: %v\n", name, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !archive {
			_, err := out.Write(small.Bytes())
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: names.Of(name, f), Mode: 0o644, Size: int64(small.Len())}); err != nil {
			return err
		}
		_, err = w.Write(small.Bytes())
		return err
	})
	if err == nil && archive {
		err = w.Close()
	}
	return err
}

// joinArchives makes one archive of those that the tasks have left.
func joinArchives(out io.Writer) error {
	w, names := tar.NewWriter(out), picture.Names{}
	err := task.EachFile(func(name string, r io.Reader) error {
		for t := tar.NewReader(r); ; {
			h, err := t.Next()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = w.WriteHeader(&tar.Header{Name: names.Free(h.Name), Mode: h.Mode, Size: h.Size})
			}
			if err == nil {
				_, err = io.Copy(w, t)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	})
	if err != nil {
		return err
	}
	return w.Close()
}
