package picture

import (
	"path"
	"strconv"
	"strings"
)

// Names are those that an archive has already: no two of its pictures have one.
type Names map[string]bool

// Of returns what a picture made of a file is called in an archive: as its file, with
// the suffix of its format. Where that is taken the suffix is appended, else, as by
// Free, the name is numbered.
func (n Names) Of(file string, f Format) string {
	name := strings.TrimPrefix(file, "/")
	ext := strings.ToLower(path.Ext(name))
	suffix := "." + string(f)
	if f == JPEG {
		suffix = ".jpg"
	}
	if ext != suffix && !(f == JPEG && ext == ".jpeg") {
		if short := strings.TrimSuffix(name, path.Ext(name)) + suffix; !n[short] {
			name = short
		} else {
			name += suffix
		}
	}
	return n.Free(name)
}

// Free takes a name: this one, or the first of name-2.png, name-3.png and so on that
// is free.
func (n Names) Free(name string) string {
	ext := path.Ext(name)
	free := name
	for i := 2; n[free]; i++ {
		free = strings.TrimSuffix(name, ext) + "-" + strconv.Itoa(i) + ext
	}
	n[free] = true
	return free
}
