package fs

import (
	"maps"
	"slices"
)

// The kernel carries out a rename of one name of an inode to another name of it
// by doing nothing, and asks nobody. It looks both names up under the locks of
// their directories, one after the other. Where another mount's rename comes
// between the two, both show the same inode, though never at one moment, and the
// rename would seem to have succeeded here, too. So a look-up that would show the
// kernel a second name of an inode, while a first one that it was shown may be
// gone, is answered with ESTALE, once: the kernel begins the operation anew and
// looks up all names again. Whoever gets the lock of the first name's directory
// after that knows that nobody goes on who was shown it.

const (
	maxKnownNames = 16      // names of one inode that are remembered
	maxShown      = 100_000 // names of one directory that are remembered
	maxAnew       = 1000    // threads that began anew for one inode
)

// knownName is a name that the kernel was given for an inode.
type knownName struct {
	place
	n uint64 // grows with each time
}

// tell notes that the kernel is given a name.
func (in *inode) tell(at place) {
	in.mu.Lock()
	in.untell(at)
	in.knowns++
	if len(in.known) == maxKnownNames {
		in.known = in.known[1:]
	}
	in.known = append(in.known, knownName{at, in.knowns})
	in.mu.Unlock()
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

// mayShowNone notes that the kernel is about to be told that there is no such
// name, or to move an entry to it.
func (d *inode) mayShowNone(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown[name] == 0 {
		d.show(name, 0)
	}
}

// showing returns those of names that the kernel may have, or may have been shown
// since a notice of them.
func (d *inode) showing(names []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unlisted {
		return names
	}
	var list []string
	for _, n := range names {
		if _, ok := d.shown[n]; ok {
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

// untell: the name is gone, and the kernel knows. in.mu is held.
func (in *inode) untell(at place) {
	in.known = slices.DeleteFunc(in.known, func(k knownName) bool { return k.place == at })
}

// given is a name that the kernel was given for in.
type given struct {
	in *inode
	knownName
}

// givenAs are names of d that the kernel was given, as it was given them last.
func (d *inode) givenAs(names []string) map[string]given {
	all := map[string]given{}
	for _, n := range names {
		d.mu.Lock()
		ino := d.shown[n]
		d.mu.Unlock()
		in := d.fs.peek(ino)
		if in == nil {
			continue
		}
		in.mu.Lock()
		if i := slices.IndexFunc(in.known, func(k knownName) bool { return k.place == (place{d.ino, n}) }); i >= 0 {
			all[n] = given{in, in.known[i]}
		}
		in.mu.Unlock()
	}
	return all
}

// dropped: the kernel has taken a notice of the name that was sent after it was
// given, so it has the name no more, and nobody goes on who was shown it. If it
// was given again meanwhile, that stays.
func (g given) dropped() {
	if g.in == nil {
		return
	}
	g.in.mu.Lock()
	g.in.known = slices.DeleteFunc(g.in.known, func(k knownName) bool { return k == g.knownName })
	g.in.mu.Unlock()
}

// doubtful are the names other than at that the kernel may take for those of in,
// and that are not known to be.
func (in *inode) doubtful(at place) []knownName {
	in.mu.Lock()
	list := slices.Clone(in.known)
	in.mu.Unlock()
	return slices.DeleteFunc(list, func(k knownName) bool {
		if k.place == at {
			return true
		}
		f, ok := in.fs.inode(k.dir).remembered(k.name)
		return ok && f.in == in
	})
}

// mayShow says whether the kernel's thread may be shown the name at of in; false:
// it is to begin anew.
func (r *raw) mayShow(thread uint32, in *inode, at place) bool {
	list := in.doubtful(at)
	if len(list) == 0 {
		return true
	}
	d := r.fs.inode(at.dir)
	d.mu.Lock()
	before := d.shown[at.name]
	delete(d.shown, at.name)
	d.mu.Unlock()
	if before != 0 && before != in.ino {
		return true // the kernel only compares this with what it has, and asks again
	}
	in.mu.Lock()
	again := in.anew[thread]
	switch {
	case again:
		delete(in.anew, thread)
	case in.anew == nil || len(in.anew) >= maxAnew:
		in.anew = map[uint32]bool{thread: true}
	default:
		in.anew[thread] = true
	}
	in.mu.Unlock()
	if again {
		return true
	}
	r.fs.spawn(func() {
		for _, k := range list {
			r.conn.expireEntry(k.dir, k.name)
		}
		in.mu.Lock()
		in.known = slices.DeleteFunc(in.known, func(k knownName) bool { return slices.Contains(list, k) })
		in.mu.Unlock()
	})
	return false
}

// hide forgets names of a directory that the kernel has dropped. It keeps those
// of directories, see directories.
func (d *inode) hide(names []string) {
	kept := d.directories(names)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range names {
		if !kept[n] {
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
