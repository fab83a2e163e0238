package fs

import (
	"maps"
	"slices"
)

const maxShown = 100_000 // names of one directory that are remembered

// tell notes that the kernel is given a name of a directory. Those of
// directories are not dropped from the kernel, see directories.
func (in *inode) tell(at place) {
	d := in.fs.inode(at.dir)
	d.mu.Lock()
	d.show(at.name, in.ino)
	d.mu.Unlock()
}

// show notes that the kernel may have a name of the directory d. d.mu is held.
func (d *inode) show(name string, ino uint64) {
	if d.shown == nil {
		d.shown = map[string]uint64{}
	}
	if _, ok := d.shown[name]; !ok && len(d.shown) >= maxShown {
		d.unlisted = true
		return
	}
	d.shown[name] = ino
}

// given is the inode that the kernel was given for a name of d; nil: not known.
func (d *inode) given(name string) *inode {
	d.mu.Lock()
	ino := d.shown[name]
	d.mu.Unlock()
	return d.fs.peek(ino)
}

// mayShowNone notes that the kernel is about to be told that there is no such
// name, or to move an entry to it.
func (d *inode) mayShowNone(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown[name] == 0 {
		d.show(name, 0)
	}
}

// looks surrounds a look-up of a name, until what the kernel is told has been noted.
func (d *inode) looks(name string) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.looking == nil {
		d.looking = map[string]int{}
	}
	d.looking[name]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.looking[name]--; d.looking[name] == 0 {
			delete(d.looking, name)
		}
	}
}

// showing returns those of names that the kernel may have, or may have been shown
// since a notice of them, or may be about to be.
func (d *inode) showing(names []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unlisted {
		return names
	}
	var list []string
	for _, n := range names {
		if _, ok := d.shown[n]; ok || d.looking[n] > 0 {
			list = append(list, n)
		}
	}
	return list
}

// allShown are all names that the kernel may have.
func (d *inode) allShown() (names []string, complete bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.shown)), !d.unlisted
}

// leaving is a name of a directory that is recalled. Until that is answered it is what
// it was, so that may still be told to a look-up that cannot wait until it has
// changed: who waits for it holds the lock that the recall needs.
type leaving struct {
	recalls int
	told    int // how often
}

// leave begins a recall of names. in.mu is held, as for the next two.
func (d *inode) leave(names []string) {
	if d.leaving == nil {
		d.leaving = map[string]*leaving{}
	}
	for _, n := range names {
		if d.leaving[n] == nil {
			d.leaving[n] = &leaving{}
		}
		d.leaving[n].recalls++
	}
}

func (d *inode) stay(names []string) {
	for _, n := range names {
		if l := d.leaving[n]; l.recalls > 1 {
			l.recalls--
		} else {
			delete(d.leaving, n)
		}
	}
}

func (d *inode) toldOf(names []string) (n int) {
	for _, name := range names {
		n += d.leaving[name].told
	}
	return n
}

// tellsLeaving notes that a look-up is told what a name is that is being recalled.
// If it is not being recalled (any more), it must not be told.
func (d *inode) tellsLeaving(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.leaving[name]
	if l != nil {
		l.told++
	}
	return l != nil
}

// hide forgets names of a directory that the kernel has dropped. It keeps those
// of directories, see directories.
func (d *inode) hide(names []string) {
	kept := d.directories(names)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range names {
		if !kept[n] && d.looking[n] == 0 {
			delete(d.shown, n)
		}
	}
}

// directories are those of names that the kernel was given for directories. It
// must not drop them, for that would take away what is mounted below: it is made
// to look them up again.
func (d *inode) directories(names []string) map[string]bool {
	var dirs map[string]bool
	for _, n := range names {
		d.mu.Lock()
		ino := d.shown[n]
		d.mu.Unlock()
		in := d.fs.peek(ino)
		if in == nil {
			continue
		}
		in.mu.Lock()
		if in.isDir() {
			if dirs == nil {
				dirs = map[string]bool{}
			}
			dirs[n] = true
		}
		in.mu.Unlock()
	}
	return dirs
}

// shownBefore: the kernel was given this directory under this name before, and may
// be comparing. It does that without a lock, so that the answer may come into
// force after a notice that was sent after it.
func (in *inode) shownBefore(at place) bool {
	in.mu.Lock()
	dir := in.isDir()
	in.mu.Unlock()
	if !dir {
		return false
	}
	d := in.fs.inode(at.dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown[at.name] == in.ino
}
