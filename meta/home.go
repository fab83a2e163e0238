package meta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
	"quernfs/meta/state"
)

// home is the server's directory; doc.go draws it.
type home struct {
	dir  string
	lock *os.File
	key  []byte
	seq  int // of the state directory in use
}

const (
	versionFile = "quern-meta"
	versionText = "quern metadata 1\n"
)

// openHome locks the directory and checks that it is a metadata server's.
func openHome(dir string, key []byte) (*home, error) {
	bad := func(code wire.Code, format string, args ...any) error {
		return wire.Errorf(code, "open metadata server", dir, format, args...)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	text, err := os.ReadFile(filepath.Join(dir, versionFile))
	switch {
	case errors.Is(err, os.ErrNotExist) && foreign(names):
		return nil, bad(wire.Invalid, "the directory holds other files and is not a metadata server's; give an empty one")
	case err == nil && len(text) > 0 && string(text) != versionText:
		return nil, bad(wire.Unsupported, "the directory was written by another version of quern: %q", strings.TrimSpace(string(text)))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeOf(err), Op: "open metadata server", Object: dir, Err: err}
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, bad(wire.Busy, "another metadata server is running on this directory; stop it first")
	}
	h := &home{dir: dir, lock: lock, key: key}
	if len(text) == 0 {
		if err := writeSynced(filepath.Join(dir, versionFile), []byte(versionText)); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

// foreign: names hold something that a first start cannot have left.
func foreign(names []os.DirEntry) bool {
	for _, n := range names {
		if n.Name() != "lock" && !strings.HasPrefix(n.Name(), versionFile) {
			return true
		}
	}
	return false
}

func (h *home) close() error { return h.lock.Close() }

func (h *home) path(names ...string) string {
	return filepath.Join(append([]string{h.dir}, names...)...)
}

func (h *home) stateDir(seq int) string { return h.path(fmt.Sprintf("state-%d", seq)) }

// openState opens the state directory that `current` names, an empty one at
// the first start.
func (h *home) openState() (*state.State, error) {
	text, err := os.ReadFile(h.path("current"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		h.seq = 1
		if err := os.RemoveAll(h.stateDir(1)); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if _, err := fmt.Sscanf(string(text), "state-%d\n", &h.seq); err != nil {
			return nil, wire.Errorf(wire.Corrupt, "open metadata server", h.dir, "the file `current` is damaged; restore the directory from a backup, or remove it and let the other members fill it")
		}
		if _, err := os.Stat(h.stateDir(h.seq)); err != nil {
			return nil, wire.Errorf(wire.Corrupt, "open metadata server", h.dir, "%s is missing; restore the directory from a backup, or remove it and let the other members fill it", filepath.Base(h.stateDir(h.seq)))
		}
	}
	s, err := state.Open(state.Config{Dir: h.stateDir(h.seq), Key: h.key})
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
	return writeSynced(h.path("current"), fmt.Appendf(nil, "state-%d\n", seq))
}

// install unpacks a snapshot beside the current state and makes it current.
func (h *home) install(r io.Reader) (*state.State, error) {
	dir := h.stateDir(h.seq + 1)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := unpack(r, dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s, err := state.Open(state.Config{Dir: dir, Key: h.key})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := h.point(h.seq + 1); err != nil {
		s.Close()
		return nil, err
	}
	h.seq++
	return s, nil
}

// clean removes state directories that are not current, and, at start, what a
// crash has left.
func (h *home) clean(start bool) {
	names, _ := os.ReadDir(h.dir)
	for _, n := range names {
		old := strings.HasPrefix(n.Name(), "state-") && n.Name() != filepath.Base(h.stateDir(h.seq))
		if old || start && strings.HasPrefix(n.Name(), "tmp-") {
			os.RemoveAll(h.path(n.Name()))
		}
	}
}

// scratch names a directory that does not exist, on the same filesystem.
func (h *home) scratch(what string) (string, error) {
	dir, err := os.MkdirTemp(h.dir, "tmp-"+what+"-")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "state"), nil
}

// writeSynced replaces a file atomically and durably.
func writeSynced(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
