package meta

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

func TestPackedCheckpoints(t *testing.T) {
	dir := t.TempDir()
	want := map[string]int{"a.sst": 1000, "b.sst": 512, "MANIFEST-000001": 0, "OPTIONS-000002": 1}
	for name, n := range want {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name[:1]), n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := new(Disk).pack(dir, &b); err != nil {
		t.Fatal(err)
	}
	// Raft announces the size before it sends the bytes.
	if size, err := new(Disk).packedSize(dir); err != nil || size != int64(b.Len()) {
		t.Fatalf("announced %d, packed %d bytes: %v", size, b.Len(), err)
	}
	to := filepath.Join(t.TempDir(), "state")
	if err := new(Disk).unpack(bytes.NewReader(b.Bytes()), to); err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte(name[:1]), n)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := new(Disk).unpack(bytes.NewReader(b.Bytes()[:700]), filepath.Join(t.TempDir(), "state")); err == nil {
		t.Error("half a snapshot was taken for a whole one")
	}
}

func FuzzUnpack(f *testing.F) {
	archive := func(name string, typ byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: name, Size: 1, Typeflag: typ, Mode: 0o600})
		w.Write([]byte("x"))
		w.Close()
		return b.Bytes()
	}
	f.Add(archive("a", tar.TypeReg))
	f.Add(archive("../a", tar.TypeReg))
	f.Add(archive("/etc/a", tar.TypeReg))
	f.Add(archive("..", tar.TypeReg))
	f.Add(archive("a", tar.TypeSymlink))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		new(Disk).unpack(bytes.NewReader(data), filepath.Join(outer, "state"))
		names, err := os.ReadDir(outer)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if n.Name() != "state" {
				t.Fatalf("it wrote %q outside of its directory", n.Name())
			}
		}
	})
}

func TestSnapshotStore(t *testing.T) {
	h, err := openHome(Disk{}, filepath.Join(t.TempDir(), "meta"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	s, err := openSnapshots(h)
	if err != nil {
		t.Fatal(err)
	}
	make := func(index uint64) *sink {
		k, err := s.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		return k.(*sink)
	}
	k := make(5)
	k.Write([]byte("half"))
	if err := k.Cancel(); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{10, 20} {
		k := make(index)
		k.Write([]byte("stream"))
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Index != 20 || all[0].Size != 6 {
		t.Fatalf("listed %v, %v", all, err)
	}
	// A checkpoint takes the stream's place, and is read as one.
	dir, err := h.scratch("checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(dir, 0o700)
	os.WriteFile(filepath.Join(dir, "a.sst"), []byte("data"), 0o600)
	k = make(30)
	if err := (&checkpoint{dir: dir}).Persist(k); err != nil {
		t.Fatal(err)
	}
	all, _ = s.List()
	if len(all) != 1 || all[0].Index != 30 {
		t.Fatalf("listed %v", all)
	}
	m, r, err := s.Open(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != m.Size {
		t.Fatalf("read %d bytes of %d: %v", len(data), m.Size, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
