package fs

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"quernfs/internal/wire"
)

// dirCache is what is known of a directory's entries while its read lease is
// held: some names, or all of them. It is not safe for concurrent use.
type dirCache struct {
	known    map[string]child    // ino 0: there is no such entry
	complete bool                // a name that is neither in known nor in unknown does not exist
	unknown  map[string]struct{} // with complete: names that another session has changed
	index    uint64              // of the newest change of ours: older answers are not recorded
	sorted   []*wire.DirEntry    // the listing in order; nil: to be made

	// changing has the names that this session is changing. Whether it has
	// happened yet nobody here knows until the answer is there, which may take
	// long, while others see it: nothing is believed of them.
	changing map[string]*ownChange
}

// ownChange are the changes of one name that are under way.
type ownChange struct {
	n     int
	index uint64 // of the newest that has been answered: answers overtake each other
}

// child is one entry.
type child struct {
	ino uint64
	typ uint32 // mode & S_IFMT
}

const (
	maxKnown   = 100_000 // entries kept of one directory
	maxUnknown = 256     // more, and the directory is read again
)

// cookieOf is the place of a name in the order of its directory, as meta gives
// it: agreed on by everyone, so that what a mount changes itself need not be
// asked for.
func cookieOf(name string) uint64 {
	return max(xxhash.Sum64String(name)>>1, 3)
}

// created starts the cache of a directory that has just been made.
func (d *dirCache) created() {
	*d = dirCache{known: map[string]child{}, complete: true, changing: d.changing}
}

// begin notes that this session is about to change a name, end that all that
// will be known of it has been recorded.
func (d *dirCache) begin(name string) {
	if d.changing == nil {
		d.changing = map[string]*ownChange{}
	}
	c := d.changing[name]
	if c == nil {
		c = &ownChange{}
		d.changing[name] = c
	}
	c.n++
}

func (d *dirCache) end(name string) {
	if c := d.changing[name]; c.n > 1 {
		c.n--
	} else {
		delete(d.changing, name)
	}
}

// find returns the entry name; ok: the answer is certain.
func (d *dirCache) find(name string) (c child, ok bool) {
	if _, busy := d.changing[name]; busy {
		return child{}, false
	}
	if c, ok := d.known[name]; ok {
		return c, true
	}
	if !d.complete {
		return child{}, false
	}
	_, gone := d.unknown[name]
	return child{}, !gone
}

// learn records what an answer from the state at index said about a name.
func (d *dirCache) learn(name string, c child, index uint64) {
	if index >= d.index {
		d.put(name, c)
	}
}

// set records a change of this session's own, made at index.
func (d *dirCache) set(name string, c child, index uint64) {
	d.index = max(d.index, index)
	if own := d.changing[name]; own != nil {
		if index < own.index {
			return
		}
		own.index = index
	}
	d.put(name, c)
}

func (d *dirCache) put(name string, c child) {
	if d.known == nil || len(d.known) >= maxKnown {
		d.clear()
		d.known = map[string]child{}
	}
	delete(d.unknown, name)
	if d.complete && c.ino == 0 {
		delete(d.known, name)
	} else {
		d.known[name] = c
	}
	d.sorted = nil
}

// forget drops names: another session changes them.
func (d *dirCache) forget(names []string) {
	for _, n := range names {
		delete(d.known, n)
		if d.complete {
			if d.unknown == nil {
				d.unknown = map[string]struct{}{}
			}
			d.unknown[n] = struct{}{}
		}
	}
	if len(d.unknown) > maxUnknown {
		d.complete, d.unknown = false, nil
	}
	d.sorted = nil
}

// clear forgets everything but the index and what is under way.
func (d *dirCache) clear() {
	*d = dirCache{index: d.index, changing: d.changing}
}

// fill records a whole listing, read from states at index or later.
func (d *dirCache) fill(list []*wire.DirEntry, index uint64) {
	if index < d.index || len(list) > maxKnown {
		return
	}
	d.known = make(map[string]child, len(list))
	for _, e := range list {
		d.known[e.Name] = child{e.Ino, e.Type}
	}
	d.complete, d.unknown, d.sorted = true, nil, nil
}

// list returns all entries in order, or nil when not all are known. The caller
// must not change it.
func (d *dirCache) list() []*wire.DirEntry {
	if !d.complete || len(d.unknown) > 0 || len(d.changing) > 0 {
		return nil
	}
	if d.sorted == nil {
		d.sorted = make([]*wire.DirEntry, 0, len(d.known))
		for n, c := range d.known {
			if c.ino != 0 {
				d.sorted = append(d.sorted, &wire.DirEntry{Name: n, Ino: c.ino, Type: c.typ, Cookie: cookieOf(n)})
			}
		}
		slices.SortFunc(d.sorted, compareEntries)
	}
	return d.sorted
}

func compareEntries(a, b *wire.DirEntry) int {
	switch {
	case a.Cookie < b.Cookie:
		return -1
	case a.Cookie > b.Cookie:
		return 1
	}
	return strings.Compare(a.Name, b.Name)
}
