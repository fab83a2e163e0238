package worker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"quernfs/internal/rawtext"
)

// source reads a range of an input. It returns fewer bytes than asked for only
// at the end, then with io.EOF.
type source interface {
	readInput(i int, p []byte, off int64) (int, error)
}

// inputs are the files of one run, as an fs.FS and as one stream.
type inputs struct {
	src   source
	files []inputFile
	root  *inputDir
	open  int // files and directories that Open gave and that are not closed
}

type inputFile struct {
	name    string
	size    int64
	content []byte // all of it; nil: src has it
}

// read returns fewer bytes than asked for only at the end, then with io.EOF.
func (in *inputs) read(i int, p []byte, off int64) (int, error) {
	c := in.files[i].content
	if c == nil {
		return in.src.readInput(i, p, off)
	}
	if off >= int64(len(c)) {
		return 0, io.EOF
	}
	n := copy(p, c[max(off, 0):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

type inputDir struct {
	name    string
	dirs    map[string]*inputDir
	files   map[string]int // index in inputs.files
	entries []fs.DirEntry  // sorted; made by seal
}

func newDir(name string) *inputDir {
	return &inputDir{name: name, dirs: map[string]*inputDir{}, files: map[string]int{}}
}

func newInputs(src source) *inputs { return &inputs{src: src, root: newDir(".")} }

// inUnicode is a path as a module knows it: paths of WASI are Unicode, so what is
// not part of UTF-8 is hidden (package rawtext). It may be so already.
func inUnicode(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return rawtext.Hide(name)
}

// add puts the file p, an absolute path, into the tree.
func (in *inputs) add(p string, size int64) error {
	name := rawtext.Hide(strings.TrimPrefix(p, "/"))
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("an input cannot be called %q", p)
	}
	d := in.root
	parts := strings.Split(name, "/")
	for _, c := range parts[:len(parts)-1] {
		if _, file := d.files[c]; file {
			return fmt.Errorf("input %q: %s is a file", p, c)
		}
		sub := d.dirs[c]
		if sub == nil {
			sub = newDir(c)
			d.dirs[c] = sub
		}
		d = sub
	}
	last := parts[len(parts)-1]
	if _, taken := d.files[last]; taken || d.dirs[last] != nil {
		return fmt.Errorf("input %q is there twice", p)
	}
	d.files[last] = len(in.files)
	in.files = append(in.files, inputFile{name: last, size: size})
	return nil
}

// seal sorts the directories; nothing is added afterwards.
func (in *inputs) seal() { in.root.seal(in) }

func (d *inputDir) seal(in *inputs) {
	for _, sub := range d.dirs {
		sub.seal(in)
		d.entries = append(d.entries, fs.FileInfoToDirEntry(dirInfo{sub.name}))
	}
	for _, i := range d.files {
		d.entries = append(d.entries, fs.FileInfoToDirEntry(fileInfo{in.files[i]}))
	}
	sort.Slice(d.entries, func(i, j int) bool { return d.entries[i].Name() < d.entries[j].Name() })
}

// Open implements fs.FS.
func (in *inputs) Open(name string) (fs.File, error) {
	f, err := in.find(name)
	if err == nil {
		in.open++
	}
	return f, err
}

func (in *inputs) find(name string) (fs.File, error) {
	name = inUnicode(name)
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return &openDir{in: in, dir: in.root}, nil
	}
	d := in.root
	dir, last := path.Split(name)
	for _, c := range strings.Split(strings.Trim(dir, "/"), "/") {
		if c == "" {
			continue
		}
		if d = d.dirs[c]; d == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	if sub := d.dirs[last]; sub != nil {
		return &openDir{in: in, dir: sub}, nil
	}
	if i, ok := d.files[last]; ok {
		return &openFile{in: in, i: i}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// stream is all inputs, one after the other.
func (in *inputs) stream() io.Reader { return &stream{in: in} }

type stream struct {
	in  *inputs
	i   int
	off int64
}

func (s *stream) Read(p []byte) (int, error) {
	for s.i < len(s.in.files) {
		n, err := s.in.read(s.i, p, s.off)
		s.off += int64(n)
		if errors.Is(err, io.EOF) {
			s.i, s.off, err = s.i+1, 0, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
	return 0, io.EOF
}

// openFile is one open input. Small reads in sequence are served from a
// buffer.
type openFile struct {
	in    *inputs
	i     int
	off   int64
	buf   []byte
	start int64 // offset of buf
	eof   bool  // buf ends at the end of the file
}

func (f *openFile) Stat() (fs.FileInfo, error) { return fileInfo{f.in.files[f.i]}, nil }
func (f *openFile) Close() error               { f.in.open--; return nil }

func (f *openFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	total := 0
	for total < len(p) {
		at := off + int64(total)
		if at >= f.start && at < f.start+int64(len(f.buf)) {
			total += copy(p[total:], f.buf[at-f.start:])
			continue
		}
		if f.eof && at >= f.start+int64(len(f.buf)) {
			return total, io.EOF
		}
		if f.buf == nil {
			f.buf = make([]byte, 0, min(chunk, max(f.in.files[f.i].size+1, 512)))
		}
		n, err := f.in.read(f.i, f.buf[:cap(f.buf)], at)
		f.buf, f.start, f.eof = f.buf[:n], at, errors.Is(err, io.EOF)
		if err != nil && !f.eof {
			f.buf = f.buf[:0]
			return total, err
		}
	}
	return total, nil
}

func (f *openFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += f.in.files[f.i].size
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	f.off = off
	return off, nil
}

type openDir struct {
	in   *inputs
	dir  *inputDir
	next int
}

func (d *openDir) Stat() (fs.FileInfo, error) { return dirInfo{d.dir.name}, nil }
func (d *openDir) Close() error               { d.in.open--; return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.dir.name, Err: fs.ErrInvalid}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := d.dir.entries[d.next:]
	if n <= 0 {
		d.next = len(d.dir.entries)
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, io.EOF
	}
	rest = rest[:min(n, len(rest))]
	d.next += len(rest)
	return rest, nil
}

type fileInfo struct{ f inputFile }

func (i fileInfo) Name() string       { return i.f.name }
func (i fileInfo) Size() int64        { return i.f.size }
func (i fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i fileInfo) ModTime() time.Time { return time.Unix(0, 0) }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }

type dirInfo struct{ name string }

func (i dirInfo) Name() string       { return i.name }
func (i dirInfo) Size() int64        { return 0 }
func (i dirInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (i dirInfo) ModTime() time.Time { return time.Unix(0, 0) }
func (i dirInfo) IsDir() bool        { return true }
func (i dirInfo) Sys() any           { return nil }
