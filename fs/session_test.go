package fs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// Meta ends a session: what was not stored is lost and said so once; the mount
// goes on under a new session.
func TestSessionEnded(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, mnt := c.mountFS(func(cfg *Config) { cfg.FlushAfter = time.Hour })
	other := c.mount()
	write1(t, filepath.Join(mnt, "stored"), "stored")
	f, err := os.OpenFile(filepath.Join(mnt, "stored"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	_, err = f.WriteAt([]byte("LOST!!!!"), 0)
	must(t, err)
	old := a.Session()
	plain, err := client.Open(t.Context(), client.Config{Servers: []*wire.Endpoint{c.ep}, Pool: c.pool("client", "operator"), Name: "operator", Log: c.log})
	must(t, err)
	c.closes("operator", plain.Close)
	_, err = plain.Do(t.Context(), &wire.Command{Session: old, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: old}}})
	must(t, err)
	eventually(t, "a new session", func() bool { s := a.Session(); return s != 0 && s != old })
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync after the loss: %v", err)
	}
	must(t, f.Sync())
	expect(t, filepath.Join(mnt, "stored"), "stored")
	expect(t, filepath.Join(other, "stored"), "stored")
	_, err = f.WriteAt([]byte("again."), 0)
	must(t, err)
	expect(t, filepath.Join(other, "stored"), "again.")
	write1(t, filepath.Join(mnt, "new"), "new")
	expect(t, filepath.Join(other, "new"), "new")
}

// While the lease has lapsed nothing is believed; with it everything comes back.
func TestSessionLapsed(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, mnt := c.mountFS(func(cfg *Config) { cfg.FlushAfter = time.Hour })
	p := filepath.Join(mnt, "f")
	write1(t, p, "dirty")
	in := a.inode(uint64(lstat(t, p).Ino))
	h := &holder{a}
	held := h.Held()
	h.Lapsed()
	if _, keep := in.promise(); keep {
		t.Error("attributes are promised without a lease")
	}
	var f found
	f, ok := a.inode(wire.RootIno).remembered("f")
	if ok {
		t.Errorf("a name is remembered without a lease: %+v", f)
	}
	if lstat(t, p).Size != 5 {
		t.Error("the size of what is dirty")
	}
	h.Reclaimed(held)
	expect(t, p, "dirty")
	if !in.dirty() {
		t.Error("what was dirty did not stay")
	}
	// A leader that did not accept the leases.
	h.Lapsed()
	h.Reclaimed(nil)
	write1(t, p, "written without the old lease")
	expect(t, p, "written without the old lease")
}

// Grants that come late do not count.
func TestLateGrant(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a := c.fs()
	fi, err := a.Create(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)
	ino := fi.Inode().Attr.Ino
	must(t, fi.Close())
	in := a.inode(ino)
	h := &holder{a}
	in.mu.Lock()
	id := in.held.grant
	in.mu.Unlock()
	out := h.Recall(&wire.Recall{Id: id + 10, Ino: ino, Mode: wire.Mode_OPEN})
	if out.Mode != wire.Mode_NONE || out.Open || out.Id != id+10 {
		t.Fatalf("%v", out)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.learn(in.rec, &wire.Grant{Ino: ino, Mode: wire.Mode_READ, Id: id + 5}) || in.usable(wire.Mode_READ) {
		t.Error("a grant from before the recall was taken")
	}
	if !in.learn(in.rec, &wire.Grant{Ino: ino, Mode: wire.Mode_READ, Id: id + 11}) {
		t.Error("a grant from after the recall was not taken")
	}
}

// A file that the kernel has just been given a name for may be about to be
// opened: it stays for a while when it loses that name.
func TestFoundFileStays(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, b := c.fs(), c.fs()
	for _, looked := range []bool{true, false} {
		f, err := b.Create(t.Context(), wire.RootIno, "f", 0o644)
		must(t, err)
		_, err = f.WriteAt(t.Context(), []byte("content"), 0)
		must(t, err)
		must(t, f.Close())
		found, err := a.lookup(t.Context(), rootCred, wire.RootIno, "f")
		must(t, err)
		in := found.in
		if looked {
			in.mu.Lock()
			in.find()
			in.mu.Unlock()
		}
		must(t, b.unlink(t.Context(), rootCred, wire.RootIno, "f", false))
		err = a.opened(t.Context(), in)
		if !looked {
			in.mu.Lock()
			lost := in.lost
			in.mu.Unlock()
			if !errors.Is(err, wire.NotFound) || !lost {
				t.Errorf("open of what nobody kept: %v, lost: %v", err, lost)
			}
			continue
		}
		must(t, err)
		buf := make([]byte, 7)
		if n, err := a.read(t.Context(), in, buf, 0); err != nil || string(buf[:n]) != "content" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		a.closed(in)
		eventually(t, "it goes", func() bool {
			_, err := a.meta.Ask(t.Context(), &wire.Query{Cred: rootCred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: in.ino}}})
			return errors.Is(err, wire.NotFound)
		})
	}
}

// A recall that overtakes the answer with the lease that it is about: the file
// may be opened as soon as that comes.
func TestRecallOvertakesGrant(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a := c.fs()
	fi, err := a.Create(t.Context(), wire.RootIno, "f", 0o644)
	must(t, err)
	ino := fi.Inode().Attr.Ino
	must(t, fi.Close())
	in := a.inode(ino)
	in.mu.Lock()
	id := in.held.grant
	in.mu.Unlock()
	h := &holder{a}
	if out := h.Recall(&wire.Recall{Id: id + 10, Ino: ino, Mode: wire.Mode_OPEN, Victim: true, Grant: id + 5}); !out.Open {
		t.Error("the grant is on its way, and the file was said not to be open")
	}
	// Whatever is asked next, until it has come.
	if out := h.Recall(&wire.Recall{Id: id + 20, Ino: ino, Mode: wire.Mode_OPEN, Grant: id + 5}); out.Mode != wire.Mode_OPEN {
		t.Errorf("%v is left, and the file may be about to be opened", out.Mode)
	}
	in.mu.Lock()
	in.admit(&wire.Grant{Ino: ino, Id: id + 5, Mode: wire.Mode_READ})
	in.mu.Unlock()
	if out := h.Recall(&wire.Recall{Id: id + 30, Ino: ino, Mode: wire.Mode_OPEN, Victim: true, Grant: id + 5}); out.Open {
		t.Error("that grant is void by now, and the file was said to be open")
	}
}

// So does one whose lease another mount's write has taken away in between, whoever
// removes it.
func TestFoundFileStaysAfterAWrite(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	a, b := c.fs(), c.fs()
	for _, remover := range []*FS{a, b} {
		f, err := b.Create(t.Context(), wire.RootIno, "f", 0o644)
		must(t, err)
		found, err := a.lookup(t.Context(), rootCred, wire.RootIno, "f")
		must(t, err)
		in := found.in
		in.mu.Lock()
		in.find()
		in.mu.Unlock()
		_, err = f.WriteAt(t.Context(), []byte("content"), 0)
		must(t, err)
		must(t, b.flush(t.Context(), b.inode(in.ino)))
		must(t, f.Close())
		in.mu.Lock()
		mode := in.held.mode
		in.mu.Unlock()
		if mode != wire.Mode_OPEN {
			t.Errorf("after the write %v is held", mode)
		}
		must(t, remover.unlink(t.Context(), rootCred, wire.RootIno, "f", false))
		must(t, a.opened(t.Context(), in))
		buf := make([]byte, 7)
		if n, err := a.read(t.Context(), in, buf, 0); err != nil || string(buf[:n]) != "content" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		a.closed(in)
	}
}
