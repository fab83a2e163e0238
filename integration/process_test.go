package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProcesses: an operator ends, starts and ends again the processes of one
// host's cluster.
func TestProcesses(t *testing.T) {
	c := startCluster(t, "--processes", "--chunk-servers", "3", "--policy", "2+1", "--meta-servers", "1")
	writeFile(t, filepath.Join(c.mnt, "f"), "kept")
	for _, name := range []string{"meta-1", "chunkd-1", "chunkd-2", "chunkd-3", "mount-1"} {
		if c.pid(name) == 0 {
			t.Errorf("no %s.pid of a living process in DIR/run", name)
		}
	}
	c.kill("chunkd-3")
	eventually(t, patience, func() error {
		if !strings.Contains(c.output.String(), "quern start chunkd-3") {
			return errors.New("the death of chunkd-3 is not reported")
		}
		return nil
	})
	if c.pid("chunkd-3") != 0 {
		t.Error("chunkd-3 was started again behind the operator's back")
	}
	mustQuern(t, "start", "chunkd-3", "--data", c.data)
	refused(t, "running already", "start", "chunkd-3", "--data", c.data)
	refused(t, "no process chunkd-9", "start", "chunkd-9", "--data", c.data)

	// The parent dies, the others live on, and a second cluster does not get in
	// their way.
	c.up.Process.Kill()
	<-c.exited
	c.up = nil
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != "kept" {
		t.Errorf("without the parent: %q", got)
	}
	other := filepath.Join(filepath.Dir(c.mnt), "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, "quern down", "up", "--data", c.data, "--mount", other)
	mustQuern(t, "down", "--data", c.data)
	if left := c.running(); len(left) > 0 || isMounted(c.mnt) {
		t.Errorf("after quern down: %v, mounted %t", left, isMounted(c.mnt))
	}
	mustQuern(t, "down", "--data", c.data)

	c.start()
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != "kept" {
		t.Errorf("at the next start: %q", got)
	}
	mustQuern(t, "down", "--data", c.data)
	<-c.exited
	if c.exitErr != nil {
		t.Errorf("quern up, ended by quern down: %v", c.exitErr)
	}
	c.up = nil
}

// TestManyHosts makes a cluster as if each server had a host of its own: all
// that they share are addresses and what `quern cert` gives them.
func TestManyHosts(t *testing.T) {
	needMount(t)
	dir := workDir(t)
	first := filepath.Join(dir, "first")
	ports := freePorts(t, 4)
	mustQuern(t, "init", "--data", first, "--policy", "2+1", "--meta", ports[0])
	c := &cluster{t: t, data: first, mnt: filepath.Join(dir, "mnt")}
	t.Cleanup(c.cleanup)
	serve := func(args ...string) {
		cmd, output := startServer(t, args...)
		t.Cleanup(func() {
			cmd.Process.Signal(unix.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("quern %s: %v\n%s", strings.Join(args, " "), err, tail(output.String()))
			}
		})
	}
	serve("meta", "--data", first)
	for i := 1; i <= 3; i++ {
		host := unpack(t, dir, first, "chunkd", fmt.Sprintf("chunkd-%d", i))
		serve("chunkd", "--data", host, "--name", fmt.Sprintf("chunkd-%d", i), "--listen", ports[i], "--label", fmt.Sprintf("rack=r%d", i))
	}
	eventually(t, patience, func() error {
		s, err := c.status()
		if err != nil {
			return err
		}
		if len(s.ChunkServers) != 3 {
			return fmt.Errorf("%d chunk servers", len(s.ChunkServers))
		}
		return nil
	})
	if out := mustQuern(t, "status", "--data", first); !strings.Contains(out, "rack=r2") {
		t.Errorf("no label in\n%s", out)
	}
	// The mount is what mount(8) starts: the helper, which returns once it is
	// mounted.
	client := unpack(t, dir, first, "client", "client")
	helper := filepath.Join(dir, "mount.fuse.quern")
	if err := os.Symlink(quern, helper); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(helper, client, c.mnt, "-o", "rw,noatime,_netdev").CombinedOutput()
	if err != nil {
		t.Fatalf("mount.fuse.quern: %v\n%s", err, out)
	}
	want := pattern(1, 5<<20)
	if err := writeSynced(filepath.Join(c.mnt, "f"), want); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(c.mnt, "f")); got != string(want) {
		t.Error("wrong bytes")
	}
	if out, err := exec.Command(helper, client, c.mnt, "-o", "remount,ro").CombinedOutput(); err != nil {
		t.Errorf("remount: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(c.mnt, "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write after remount,ro: %v", err)
	}
	// umount(8) ends the process.
	shell(t, "/", "umount "+c.mnt)
	eventually(t, patience, func() error {
		files, _ := filepath.Glob(filepath.Join(client, "run", "*.pid"))
		if len(files) > 0 {
			return fmt.Errorf("still there: %v", files)
		}
		return nil
	})
}

// unpack gives a process of another host its bundle, and returns its data
// directory there.
func unpack(t *testing.T, dir, first, role, name string) string {
	t.Helper()
	bundle, host := filepath.Join(dir, name+".tar"), filepath.Join(dir, "host-"+name)
	mustQuern(t, "cert", role, name, "--data", first, "--out", bundle)
	shell(t, dir, "mkdir "+host+" && tar -C "+host+" -xf "+bundle)
	return host
}

// startServer starts a quern that runs until it is told to end.
func startServer(t *testing.T, args ...string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()
	cmd := exec.Command(quern, args...)
	var output lockedBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &output
}
