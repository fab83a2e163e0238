package meta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
	"quernfs/meta/group"
	"quernfs/meta/state"
)

// home is the server's directory; doc.go draws it.
type home struct {
	disk Disk
	dir  string
	lock io.Closer
	key  []byte
	seq  int // of the state directory in use

	tmp atomic.Uint64 // directories that scratch has named
}

const (
	versionFile = "quern-meta"
	versionText = "quern metadata 1\n"
)

// openHome locks the directory and checks that it is a metadata server's.
func openHome(disk Disk, dir string, key []byte) (*home, error) {
	bad := func(code wire.Code, format string, args ...any) error {
		return wire.Errorf(code, "open metadata server", dir, format, args...)
	}
	if err := disk.makeDir(dir); err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	names, err := disk.fs().List(dir)
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	text, err := disk.readFile(filepath.Join(dir, versionFile))
	switch {
	case errors.Is(err, os.ErrNotExist) && foreign(names):
		return nil, bad(wire.Invalid, "the directory holds other files and is not a metadata server's; give an empty one")
	case err == nil && len(text) > 0 && string(text) != versionText:
		return nil, bad(wire.Unsupported, "the directory was written by another version of quern: %q", strings.TrimSpace(string(text)))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	lock, err := disk.lock(filepath.Join(dir, "lock"))
	if errors.Is(err, errHeld) {
		return nil, bad(wire.Busy, "another metadata server is running on this directory; stop it first")
	}
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	h := &home{disk: disk, dir: dir, lock: lock, key: key}
	if len(text) == 0 {
		if err := disk.writeSynced(filepath.Join(dir, versionFile), []byte(versionText)); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

// foreign: names hold something that a first start cannot have left.
func foreign(names []string) bool {
	for _, n := range names {
		if n != "lock" && !strings.HasPrefix(n, versionFile) {
			return true
		}
	}
	return false
}

// Blank says whether there is nothing of a metadata server in dir: it is
// missing, or a server that was never taken in has made it.
func Blank(dir string) (bool, error) { return blank(Disk{}, dir) }

func blank(disk Disk, dir string) (bool, error) {
	nothing := true
	for _, name := range []string{"current", "log"} {
		switch _, err := disk.fs().Stat(filepath.Join(dir, name)); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return false, err
		default:
			nothing = false
		}
	}
	if nothing {
		return true, nil
	}
	rec, err := record{home: &home{disk: disk, dir: dir}}.Load()
	if err != nil || rec == nil { // of a version that kept no record
		return false, err
	}
	return rec.ID != group.NameOf(raft.ServerID(rec.ID)) && len(rec.Cluster) == 0, nil
}

// record keeps who this server is in the group, and its right to begin one.
type record struct {
	home  *home
	right string // path of the file that is the right; "": none
}

var _ group.Home = record{}

func (r record) Load() (*group.Record, error) {
	b, err := r.home.disk.readFile(r.home.path("member"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec, err := group.DecodeRecord(b)
	if err != nil {
		return nil, fmt.Errorf("the file `member` is damaged: %w", err)
	}
	return rec, nil
}

func (r record) Save(rec group.Record) error {
	return r.home.disk.writeSynced(r.home.path("member"), rec.Encode())
}

func (r record) MayBegin() (bool, error) {
	if r.right == "" {
		return false, nil
	}
	_, err := r.home.disk.fs().Stat(r.right)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (r record) UseRight() error {
	if err := r.home.disk.fs().Remove(r.right); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return r.home.disk.syncDir(filepath.Dir(r.right))
}

func (h *home) close() error { return h.lock.Close() }

func (h *home) path(names ...string) string {
	return filepath.Join(append([]string{h.dir}, names...)...)
}

func (h *home) stateDir(seq int) string { return h.path(fmt.Sprintf("state-%d", seq)) }

// openState opens the state directory that `current` names, an empty one at
// the first start.
func (h *home) openState() (*state.State, error) {
	text, err := h.disk.readFile(h.path("current"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		h.seq = 1
		if err := h.disk.fs().RemoveAll(h.stateDir(1)); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if _, err := fmt.Sscanf(string(text), "state-%d\n", &h.seq); err != nil {
			return nil, wire.Errorf(wire.Corrupt, "open metadata server", h.dir, "the file `current` is damaged; remove the directory and let the other metadata servers fill it, or, of the only one, restore it from a copy")
		}
		if _, err := h.disk.fs().Stat(h.stateDir(h.seq)); err != nil {
			return nil, wire.Errorf(wire.Corrupt, "open metadata server", h.dir, "%s is missing; remove the directory and let the other metadata servers fill it, or, of the only one, restore it from a copy", filepath.Base(h.stateDir(h.seq)))
		}
	}
	s, err := state.Open(state.Config{Dir: h.stateDir(h.seq), Key: h.key, FS: h.disk.FS})
	if err != nil {
		return nil, err
	}
	if text == nil {
		if err := h.point(h.seq); err != nil {
			s.Close()
			return nil, err
		}
	}
	h.clean(true)
	return s, nil
}

// point makes seq the current state directory, for good.
func (h *home) point(seq int) error {
	return h.disk.writeSynced(h.path("current"), fmt.Appendf(nil, "state-%d\n", seq))
}

// install unpacks a snapshot beside the current state, which ends at entry have,
// and makes it current.
func (h *home) install(r io.Reader, have uint64) (*state.State, error) {
	dir := h.stateDir(h.seq + 1)
	if err := h.disk.fs().RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := h.disk.unpack(r, dir); err != nil {
		h.disk.fs().RemoveAll(dir)
		return nil, err
	}
	s, err := state.Open(state.Config{Dir: dir, Key: h.key, FS: h.disk.FS})
	if err != nil {
		h.disk.fs().RemoveAll(dir)
		return nil, err
	}
	index, _ := s.Applied()
	if index < have {
		err = fmt.Errorf("the snapshot ends at entry %d, the state has all up to %d", index, have)
	} else {
		err = h.point(h.seq + 1)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	h.seq++
	return s, nil
}

// clean removes state directories that are not current, and, at start, what a
// crash has left.
func (h *home) clean(start bool) {
	names, _ := h.disk.fs().List(h.dir)
	for _, n := range names {
		old := strings.HasPrefix(n, "state-") && n != filepath.Base(h.stateDir(h.seq))
		if old || start && strings.HasPrefix(n, "tmp-") {
			h.disk.fs().RemoveAll(h.path(n))
		}
	}
}

// scratch names a directory that does not exist, on the same filesystem, in one
// that is its caller's to remove. What an earlier process has left was removed
// when the state was opened.
func (h *home) scratch(what string) (string, error) {
	dir := h.path(fmt.Sprintf("tmp-%s-%d", what, h.tmp.Add(1)))
	return filepath.Join(dir, "state"), h.disk.fs().MkdirAll(dir, 0o700)
}
