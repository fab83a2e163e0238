package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestMountBasics(t *testing.T) {
	c := newCluster(t, 6, "4+2")
	mnt := c.mount()
	f := filepath.Join(mnt, "hello")
	must(t, os.WriteFile(f, []byte("hello, mill\n"), 0o644))
	b, err := os.ReadFile(f)
	must(t, err)
	if string(b) != "hello, mill\n" {
		t.Fatalf("%q", b)
	}
	must(t, os.Mkdir(filepath.Join(mnt, "d"), 0o755))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	must(t, os.WriteFile(filepath.Join(mnt, "d", "big"), big, 0o600))
	b, err = os.ReadFile(filepath.Join(mnt, "d", "big"))
	must(t, err)
	if !bytes.Equal(b, big) {
		t.Fatal("the big file differs")
	}
	list, err := os.ReadDir(mnt)
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	t.Log(names)
	must(t, os.Remove(f))
	if _, err := os.Stat(f); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
