package fs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// userEnv marks the process that TestMountAsUser starts.
const userEnv = "QUERN_TEST_USER"

// Whoever is not root mounts with fusermount3.
func TestMountAsUser(t *testing.T) {
	if os.Getenv(userEnv) == "" {
		needRoot(t)
		if _, err := exec.LookPath("fusermount3"); err != nil {
			t.Skip("no fusermount3")
		}
		if fi, err := os.Stat("/dev/fuse"); err != nil || fi.Mode().Perm()&0o006 != 0o006 {
			t.Skip("/dev/fuse is root's only")
		}
		const nobody = 65534
		dir := t.TempDir()
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chown(dir, nobody, nobody))
		// The test binary may lie where only root gets.
		exe := filepath.Join(dir, "test")
		b, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(exe, b, 0o755))
		cmd := exec.Command(exe, "-test.run=^TestMountAsUser$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), userEnv+"=1", "TMPDIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "PASS: TestMountAsUser") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	c := newCluster(t, 3, "1+1")
	fs := c.fs()
	mnt := filepath.Join(c.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	m, err := fs.Mount(mnt, MountOptions{})
	must(t, err)
	if _, err := os.Stat(mnt); err != nil {
		t.Error(err)
	}
	must(t, m.Unmount(t.Context()))
	must(t, m.Unmount(t.Context()))
	if err := os.Remove(mnt); err != nil {
		t.Error("still mounted:", err)
	}
}

func TestMountPoint(t *testing.T) {
	c := newCluster(t, 3, "1+1")
	needRoot(t)
	fs := c.fs()
	full := t.TempDir()
	write1(t, filepath.Join(full, "precious"), "x")
	file := filepath.Join(full, "precious")
	for _, x := range []struct{ dir, says string }{
		{filepath.Join(full, "missing"), "no such directory"}, {full, "not empty"}, {file, "not a directory"},
	} {
		if m, err := fs.Mount(x.dir, MountOptions{}); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v", x.dir, err)
			if err == nil {
				m.Unmount(t.Context())
			}
		}
	}
	// One that is in use is detached, and its user keeps what is open.
	mnt := t.TempDir()
	m, err := fs.Mount(mnt, MountOptions{})
	must(t, err)
	f, err := os.Create(filepath.Join(mnt, "busy"))
	must(t, err)
	must(t, m.Unmount(t.Context()))
	must(t, f.Close())
	<-m.Done()
	if l, err := os.ReadDir(mnt); err != nil || len(l) != 0 {
		t.Errorf("still mounted: %v %v", l, err)
	}
}
