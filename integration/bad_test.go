package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refused runs a command that must fail with one clear sentence, and returns
// the sentence.
func refused(t *testing.T, want string, args ...string) string {
	t.Helper()
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	cmd := exec.Command(quern, args...)
	go func() {
		out, err := cmd.CombinedOutput()
		done <- result{string(out), err}
	}()
	timer := time.NewTimer(3 * time.Minute)
	defer timer.Stop()
	var r result
	select {
	case r = <-done:
	case <-timer.C:
		cmd.Process.Kill()
		<-done
		t.Errorf("quern %s goes on, and should have been refused", strings.Join(args, " "))
		return ""
	}
	var exit *exec.ExitError
	if !errors.As(r.err, &exit) || exit.ExitCode() == 0 {
		t.Errorf("quern %s: %v, wanted a non-zero exit status", strings.Join(args, " "), r.err)
	}
	var sentences []string
	for _, line := range strings.Split(strings.TrimSpace(r.out), "\n") {
		if strings.HasPrefix(line, "quern: ") {
			sentences = append(sentences, line)
		}
	}
	if len(sentences) != 1 || !strings.Contains(sentences[0], want) {
		t.Errorf("quern %s says\n%s\nwanted one sentence with %q", strings.Join(args, " "), r.out, want)
	}
	if strings.Contains(r.out, "goroutine ") {
		t.Errorf("quern %s panics:\n%s", strings.Join(args, " "), tail(r.out))
	}
	return strings.Join(sentences, "\n")
}

// TestBadInput: each mistake gives one sentence that says what to do, and
// loses nothing.
func TestBadInput(t *testing.T) {
	c := startCluster(t)
	writeFile(t, filepath.Join(c.mnt, "f"), "kept")
	other := c.data + "-other"
	empty := filepath.Join(filepath.Dir(c.mnt), "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}

	t.Run("second up", func(t *testing.T) {
		refused(t, "another quern up", "up", "--data", c.data, "--mount", empty)
	})
	t.Run("policy", func(t *testing.T) {
		refused(t, "needs 12 chunk servers, and there are 6", "up", "--data", other, "--mount", empty, "--policy", "8+4")
		refused(t, "policy", "up", "--data", other, "--mount", empty, "--policy", "four+two")
		// The policy of a directory that the running cluster cannot meet.
		if out, err := tryShell(c.mnt, "mkdir p && setfattr -n user.quern.policy -v 99+2 p"); err == nil {
			t.Errorf("a policy of 99+2 is taken: %s", out)
		}
	})
	t.Run("mount point", func(t *testing.T) {
		refused(t, "does not exist", "up", "--data", other, "--mount", empty+"-not")
		refused(t, "is mounted at", "up", "--data", other, "--mount", c.mnt)
		full := filepath.Join(filepath.Dir(c.mnt), "full")
		os.Mkdir(full, 0o755)
		writeFile(t, filepath.Join(full, "something"), "")
		refused(t, "is not empty", "up", "--data", other, "--mount", full)
		refused(t, "is not empty", "mount", full, "--data", c.data)
		refused(t, "not a directory", "up", "--data", other, "--mount", filepath.Join(full, "something"))
	})
	t.Run("data directory", func(t *testing.T) {
		refused(t, "--data", "up", "--mount", empty)
		refused(t, "is not a data directory", "status", "--data", empty)
		full := filepath.Join(filepath.Dir(c.mnt), "full")
		refused(t, "is not empty", "up", "--data", full, "--mount", empty)
	})
	t.Run("wrong certificate", func(t *testing.T) {
		// A client of another cluster.
		mustQuern(t, "init", "--data", other)
		addr := metaAddr(t, c)
		refused(t, "certificate", "status", "--meta", addr, "--pki", filepath.Join(other, "pki", "client-client"))
		// One that is not there, and one that is damaged.
		refused(t, "certificate", "status", "--meta", addr, "--pki", filepath.Join(other, "pki", "nobody"))
		writeFile(t, filepath.Join(other, "pki", "client-client", "cert.pem"), "rubbish")
		refused(t, "cert.pem", "status", "--meta", addr, "--pki", filepath.Join(other, "pki", "client-client"))
	})
	t.Run("nobody answers", func(t *testing.T) {
		refused(t, "no metadata server", "status", "--data", other, "--meta", "127.0.0.1:1", "--pki", filepath.Join(c.data, "pki", "client-client"))
	})
	t.Run("unknown flag", func(t *testing.T) {
		refused(t, "unknown flag", "up", "--chunkservers", "3")
	})
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != "kept" {
		t.Errorf("after all that: %q", got)
	}
	t.Run("port in use", func(t *testing.T) {
		addr := metaAddr(t, c)
		c.stop()
		taken := listenUDP(t, addr)
		refused(t, "in use", "up", "--data", c.data, "--mount", c.mnt)
		taken.Close()
	})
	t.Run("corrupt state", func(t *testing.T) {
		for _, file := range []string{"cluster.json", "cluster.key"} {
			path := filepath.Join(c.data, file)
			was := readFile(t, path)
			writeFile(t, path, was[:len(was)/2])
			refused(t, file, "up", "--data", c.data, "--mount", c.mnt)
			writeFile(t, path, was)
		}
		for _, dir := range []string{"meta-1", "chunkd-1"} {
			damaged := damageManifests(t, filepath.Join(c.data, dir))
			if len(damaged) == 0 {
				t.Fatalf("nothing to damage in %s", dir)
			}
			refused(t, dir, "up", "--data", c.data, "--mount", c.mnt)
			for path, was := range damaged {
				writeFile(t, path, was)
			}
		}
		c.start()
		if got := readFile(t, filepath.Join(c.mnt, "f")); got != "kept" {
			t.Errorf("after the repair: %q", got)
		}
	})
}

// damageManifests overwrites the file of each Pebble store below dir that says
// which tables it has, and returns what they had.
func damageManifests(t *testing.T, dir string) map[string]string {
	t.Helper()
	was := map[string]string{}
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "MANIFEST-") {
			was[path] = readFile(t, path)
			writeFile(t, path, strings.Repeat("rubbish ", 64))
		}
		return nil
	})
	return was
}

// TestFullDisk: a disk that is full gives ENOSPC to the writer, loses nothing that
// was there, and all goes on once there is room.
func TestFullDisk(t *testing.T) {
	needMount(t)
	dir := workDir(t)
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=600m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	c := clusterIn(t, small)
	c.mnt = filepath.Join(dir, "mnt")
	if err := os.Mkdir(c.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	c.start()
	want := pattern(3, 2<<20)
	if err := writeSynced(filepath.Join(c.mnt, "first"), want); err != nil {
		t.Fatal(err)
	}
	// Fill what is left of the disk, but for a little, from outside.
	var st unix.Statfs_t
	if err := unix.Statfs(small, &st); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-40<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 200; i++ {
		err = within(t, 2*answerLimit, "a write to a full disk", func() error {
			return writeSynced(filepath.Join(c.mnt, fmt.Sprintf("more-%d", i)), pattern(uint64(i), 4<<20))
		})
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v, wanted ENOSPC", err)
	}
	eventually(t, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		for _, n := range s.ChunkServers {
			if !n.Full {
				return fmt.Errorf("%s does not count as full", n.Name)
			}
		}
		return nil
	})
	if got := readFile(t, filepath.Join(c.mnt, "first")); got != string(want) {
		t.Error("what was there before is not what it was")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() error { return writeSynced(filepath.Join(c.mnt, "last"), want) })
	if got := readFile(t, filepath.Join(c.mnt, "last")); got != string(want) {
		t.Error("wrong bytes")
	}
}
