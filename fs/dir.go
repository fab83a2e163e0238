package fs

import (
	"context"
	"sort"

	"quernfs/internal/wire"
)

// Cookies of the entries that every directory has.
const (
	cookieDot    = 1
	cookieDotDot = 2
	dirPage      = 1024 // entries asked for at once
)

// dirStream reads one directory for one handle. Its offsets are meta's cookies,
// so they mean the same after any change, in any order of calls, on any mount.
// Calls are serialised by the caller.
type dirStream struct {
	in   *inode
	page []*wire.DirEntry // entries with cookies above from
	from uint64
	eof  bool // nothing comes after page
	plus bool // page came with inodes
	up   uint64
}

// after returns entries with cookies above from, some at least unless there
// are none. With plus each comes with an inode known well enough to be shown.
func (s *dirStream) after(ctx context.Context, cred *wire.Cred, from uint64, plus bool) ([]*wire.DirEntry, error) {
	if from <= cookieDotDot {
		from = 0
	}
	if s.page != nil && s.plus == plus && from >= s.from {
		i := sort.Search(len(s.page), func(i int) bool { return s.page[i].Cookie > from })
		if i < len(s.page) || s.eof {
			return s.page[i:], nil
		}
	}
	if list := s.in.listed(from, plus); list != nil {
		// Looked at anew each time: this mount's own changes show at once.
		s.page = nil
		return list, nil
	}
	fs := s.in.fs
	s.in.mu.Lock()
	gen := s.in.gen
	s.in.mu.Unlock()
	ans, err := fs.meta.Ask(ctx, &wire.Query{Cred: cred, Op: &wire.Query_ReadDir{
		ReadDir: &wire.ReadDir{Ino: s.in.ino, After: from, Limit: dirPage, Plus: plus, Lease: true},
	}})
	if err != nil {
		return nil, err
	}
	d := ans.GetDir()
	s.page, s.from, s.eof, s.plus, s.up = d.GetEntries(), from, d.GetEof(), plus, d.GetParent()
	if s.page == nil {
		s.page = []*wire.DirEntry{}
	}
	for _, e := range s.page {
		if e.Inode != nil {
			in := fs.inode(e.Ino)
			in.mu.Lock()
			in.learn(e.Inode, grantOf(ans.Grants, e.Ino))
			in.mu.Unlock()
		}
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	g := grantOf(ans.Grants, s.in.ino)
	if g != nil && s.in.admit(g) && gen == s.in.gen {
		for _, e := range s.page {
			s.in.entries.learn(e.Name, child{e.Ino, e.Type}, ans.Index)
		}
		if from == 0 && s.eof {
			s.in.entries.fill(s.page, ans.Index)
		}
	}
	return s.page, nil
}

// listed answers from the directory's cache: nil when that does not hold all,
// or, with plus, too little about too many of the entries.
func (d *inode) listed(from uint64, plus bool) []*wire.DirEntry {
	d.mu.Lock()
	var list []*wire.DirEntry
	if d.usable(wire.Mode_READ) && d.recall == nil {
		list = d.entries.list()
	}
	d.mu.Unlock()
	if list == nil {
		return nil
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].Cookie > from })
	list = list[i:]
	if plus {
		missing := 0
		for i, e := range list {
			if i == dirPage {
				break
			}
			in := d.fs.peek(e.Ino)
			if in == nil {
				missing++
				continue
			}
			in.mu.Lock()
			if !in.believed() {
				missing++
			}
			in.mu.Unlock()
		}
		if missing > 8 {
			return nil
		}
	}
	return list
}
