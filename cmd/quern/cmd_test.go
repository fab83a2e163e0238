package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

func TestFillFlags(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "quern.yaml")
	if err := os.WriteFile(file, []byte("policy: 3+1\nchunk-servers: 9\nlabel: [rack=a, host=b]\nother: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"QUERN_CHUNK_SERVERS": "7", "QUERN_POLICY": "2+1"}
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	flags := pflag.NewFlagSet("t", pflag.ContinueOnError)
	data := flags.String("data", "", "")
	flags.String("config", "", "")
	policy := flags.String("policy", "4+2", "")
	chunks := flags.Int("chunk-servers", 6, "")
	labels := flags.StringToString("label", nil, "")
	if err := flags.Parse([]string{"--data", dir, "--policy", "8+3"}); err != nil {
		t.Fatal(err)
	}
	if err := fillFlags(flags, lookup); err != nil {
		t.Fatal(err)
	}
	if *policy != "8+3" || *chunks != 7 || *data != dir {
		t.Errorf("policy %s (command line), chunk-servers %d (environment)", *policy, *chunks)
	}
	if want := map[string]string{"rack": "a", "host": "b"}; !reflect.DeepEqual(*labels, want) {
		t.Errorf("label (file): %v", *labels)
	}
	env["QUERN_CHUNK_SERVERS"] = "many"
	again := pflag.NewFlagSet("t", pflag.ContinueOnError)
	again.Int("chunk-servers", 6, "")
	if err := fillFlags(again, lookup); err == nil || !strings.Contains(err.Error(), "QUERN_CHUNK_SERVERS") {
		t.Errorf("a value that is no number: %v", err)
	}
}

func TestPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	if pid, err := livePid(path); pid != 0 || err != nil {
		t.Fatalf("no file: %d %v", pid, err)
	}
	p, err := takePidFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takePidFile(path); !errors.Is(err, errHeld) {
		t.Errorf("taken twice: %v", err)
	}
	if pid, err := livePid(path); pid != os.Getpid() || err != nil {
		t.Errorf("livePid: %d %v", pid, err)
	}
	p.release()
	p.release()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after release: %v", err)
	}
	// What a killed process left is no obstacle, even if its id lives on in
	// another process.
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if pid, err := livePid(path); pid != 0 || err != nil {
		t.Errorf("stale: %d %v", pid, err)
	}
	if pid, err := endByPidFile(t.Context(), path, time.Second); pid != 0 || err != nil {
		t.Errorf("ending a stale one: %d %v", pid, err)
	}
	if p, err = takePidFile(path); err != nil {
		t.Fatal(err)
	}
	p.release()
}

// TestMain lets the test binary be the process that another test ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("QUERN_TEST_HOLD"); path != "" {
		if _, err := takePidFile(path); err != nil {
			os.Exit(1)
		}
		openStartReport().ready()
		select {}
	}
	os.Exit(m.Run())
}

func TestEndByPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUERN_TEST_HOLD="+path, readyEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go cmd.Wait()
	if err := waitReady(r, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	pid, err := endByPidFile(t.Context(), path, 10*time.Second)
	if err != nil || pid != cmd.Process.Pid {
		t.Errorf("ended %d, %v; it was %d", pid, err, cmd.Process.Pid)
	}
}

func TestWaitReady(t *testing.T) {
	for _, c := range []struct{ says, want string }{
		{"ready\n", ""},
		{"the port is taken\n", "the port is taken"},
		{"", errDied.Error()},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(c.says)
		w.Close()
		err = waitReady(r, 5*time.Second)
		if got := errText(err); got != c.want {
			t.Errorf("%q gives %q, wanted %q", c.says, got, c.want)
		}
		r.Close()
	}
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	if err := waitReady(r, time.Millisecond); err == nil || !strings.Contains(err.Error(), "not ready within") {
		t.Errorf("silence gives %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestFindMount(t *testing.T) {
	info := `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:44 / /mnt/a\040b rw,nosuid shared:5 - fuse.quern quern rw,user_id=0
41 22 0:45 / /mnt/two rw - tmpfs t rw
42 41 0:46 / /mnt/two rw master:1 shared:2 - fuse.quern quern rw
`
	for dir, want := range map[string]string{"/": "ext4", "/mnt/a b": "fuse.quern", "/mnt/two": "fuse.quern", "/mnt": "", "/mnt/a": ""} {
		got, err := findMount(strings.NewReader(info), dir)
		if got.typ != want || err != nil {
			t.Errorf("%s: %q %v, wanted %q", dir, got.typ, err, want)
		}
	}
}

func TestParseHelper(t *testing.T) {
	for _, c := range []struct {
		line string
		user bool   // not root
		want string // command line of quern, or the error
	}{
		{"/srv/quern /mnt -o rw,noatime,_netdev,x-systemd.automount", false, "mount /mnt --source /srv/quern --data /srv/quern -o suid,dev,rw,noatime"},
		{"/srv/quern /mnt -o rw,noatime,X-mount.mkdir", true, "mount /mnt --source /srv/quern --data /srv/quern -o rw,noatime"},
		{"10.0.0.1:7400,10.0.0.2:7400 /mnt -o ro,pki=/etc/q/client -t fuse.quern", false,
			"mount /mnt --source 10.0.0.1:7400,10.0.0.2:7400 --meta 10.0.0.1:7400,10.0.0.2:7400 --pki /etc/q/client -o suid,dev,ro"},
		{"-s /srv/quern /mnt -onosuid,nodev", false, "mount /mnt --source /srv/quern --data /srv/quern -o suid,dev,nosuid,nodev"},
		{"/srv/quern /mnt -o users,exec", false, "mount /mnt --source /srv/quern --data /srv/quern -o suid,dev,nosuid,nodev,noexec,exec"},
		{"/srv/quern /mnt", true, "mount /mnt --source /srv/quern --data /srv/quern"},
		{"/srv/quern", false, "error"},
		{"/srv/quern /mnt -o", false, "error"},
	} {
		call, err := parseHelper(strings.Fields(c.line), !c.user)
		got := "error"
		if err == nil {
			got = strings.Join(call.mountArgs(), " ")
		}
		if got != c.want {
			t.Errorf("%s\n gives  %s (%v)\n wanted %s", c.line, got, err, c.want)
		}
	}
	call, err := parseHelper(strings.Fields("/srv/q /mnt -o rw,user_id=0,default_permissions,remount,ro"), true)
	if err != nil || !call.remount || strings.Join(call.options, ",") != "rw,ro" {
		t.Errorf("remount: %+v %v", call, err)
	}
}

// TestRemountFlags: remount keeps what it does not name.
func TestRemountFlags(t *testing.T) {
	for _, c := range []struct {
		shown, options string
		want           uintptr
		fails          bool
	}{
		{"rw,nosuid,nodev,relatime", "ro", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RELATIME, false},
		{"ro,relatime", "rw", unix.MS_RELATIME, false},
		{"rw,nosuid,relatime", "suid,noatime", unix.MS_NOATIME, false},
		{"rw,noatime,noexec", "relatime,exec", unix.MS_RELATIME, false},
		{"rw,relatime", "strictatime", 0, true},
		{"rw,relatime", "policy=1+2", 0, true},
	} {
		got, err := remountFlags(strings.Split(c.shown, ","), strings.Split(c.options, ","))
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s, remounted with %s: %#x %v, wanted %#x", c.shown, c.options, got, err, c.want)
		}
	}
}

// TestMountOptions: of options that contradict each other the last counts.
func TestMountOptions(t *testing.T) {
	_, o, err := (&mountFlags{dirty: "1M", cache: "1M", options: []string{"suid", "dev", "ro", "nosuid", "rw"}}).parse()
	if err != nil || o.Suid || !o.Dev || o.ReadOnly {
		t.Errorf("suid,dev,ro,nosuid,rw: %+v %v", o, err)
	}
	if _, _, err := (&mountFlags{dirty: "1M", cache: "1M", options: []string{"strictatime"}}).parse(); !errors.Is(err, errStrictAtime) {
		t.Errorf("strictatime: %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "1K": 1024, "256MiB": 256 << 20, "1.5G": 3 << 29, "2 TiB": 2 << 40, "10B": 10} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%s: %d %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1Z", "MiB", "NaN", "1e30"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 29: "1.5 GiB", 1 << 60: "1.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestCheckPolicy(t *testing.T) {
	if err := checkPolicy("4+2", 6); err != nil {
		t.Error(err)
	}
	err := checkPolicy("8+4", 6)
	if err == nil || !strings.Contains(err.Error(), "needs 12 chunk servers, and there are 6") {
		t.Errorf("%v", err)
	}
	if err := checkPolicy("rubbish", 6); err == nil {
		t.Error("rubbish is a policy")
	}
}

func TestPrepareDir(t *testing.T) {
	for name, c := range map[string]struct {
		make []string
		want string // "" taken
	}{
		"new":        {nil, ""},
		"cut short":  {[]string{"pki/", "cluster.key", "lock", "run/"}, ""},
		"configured": {[]string{"quern.yaml"}, ""},
		"foreign":    {[]string{"letters/"}, "is not empty"},
		"headless":   {[]string{"meta-1/", "pki/", "cluster.key"}, "no cluster.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range c.make {
				if strings.HasSuffix(f, "/") {
					os.Mkdir(filepath.Join(dir, f), 0o755)
				} else {
					os.WriteFile(filepath.Join(dir, f), nil, 0o644)
				}
			}
			err := prepareDir(dir)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
			_, keyErr := os.Stat(filepath.Join(dir, "cluster.key"))
			if name == "headless" && keyErr != nil {
				t.Error("the key of a damaged cluster was removed")
			}
		})
	}
}

func TestHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c, err := localCluster("4+2", 3, 6)
	if err != nil {
		t.Fatal(err)
	}
	made, err := initHome(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	h, err := openHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(made.cluster, h.cluster) {
		t.Errorf("made %+v, read %+v", made.cluster, h.cluster)
	}
	if key, err := h.clusterKey(); err != nil || len(key) != 32 {
		t.Errorf("key: %d bytes, %v", len(key), err)
	}
	for role, name := range map[string]string{"meta": "meta-3", "chunkd": "chunkd-6", "client": "client", "agent": "agent"} {
		if id, err := h.identity(role, name); err != nil || id.Role != role || id.Name != name {
			t.Errorf("identity of %s: %+v %v", name, id, err)
		}
	}
	if _, err := h.identity("chunkd", "chunkd-7"); err == nil || !strings.Contains(err.Error(), "quern cert chunkd chunkd-7") {
		t.Errorf("an identity that is not there: %v", err)
	}
	if err := h.addNodes(8); err != nil {
		t.Fatal(err)
	}
	if h, err = openHome(dir); err != nil || len(h.Nodes) != 8 || h.Nodes[7].Name != "chunkd-8" {
		t.Fatalf("after addNodes: %+v %v", h, err)
	}
	bundle := filepath.Join(t.TempDir(), "b.tar")
	if err := h.bundle(bundle, "chunkd", "chunkd-8"); err != nil {
		t.Fatal(err)
	}
	far := t.TempDir()
	if out, err := exec.Command("tar", "-C", far, "-xf", bundle).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	there, err := openHome(far)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.identity("chunkd", "chunkd-8"); err != nil {
		t.Error(err)
	}
	if _, err := there.clusterKey(); err != nil {
		t.Error(err)
	}
}

func TestSentence(t *testing.T) {
	err := errors.Join(errors.New("one"), &wire.Error{Code: wire.TooFew, Op: "write block"})
	got := sentence(err)
	if strings.Contains(got, "\n") || !strings.Contains(got, "one; ") || !strings.Contains(got, "start more chunk servers") {
		t.Errorf("%q", got)
	}
}

func TestStatusPrint(t *testing.T) {
	a := &wire.StatusAnswer{
		ClusterId: []byte{1, 2}, Policy: &wire.Policy{K: 4, M: 2}, BlocksHealthy: 3, BlocksLost: 1, Inodes: 12, LiveBytes: 5 << 20,
		Members: []*wire.MemberStatus{{Name: "meta-1", Addr: "a:1", Leader: true, Voter: true, Alive: true, Applied: 99}},
		Nodes: []*wire.NodeStatus{
			{Node: &wire.Node{Id: 7, Name: "chunkd-1", Kind: "chunkd", State: "up", Labels: []*wire.Label{{Key: "rack", Value: "r1"}}}, Alive: true, Total: 10 << 30, Free: 4 << 30, Shards: 5},
			{Node: &wire.Node{Id: 8, Name: "h:mount-1", Kind: "agent", State: "up"}, Slots: 2, Busy: 1},
		},
		Sessions: []*wire.SessionStatus{{Session: &wire.Session{Id: 4, Name: "/mnt/q", Host: "h"}, LeasesRead: 8, LeasesWrite: 2}},
	}
	var out bytes.Buffer
	if err := statusOf(a).print(&out, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 healthy, 0 degraded, 1 lost", "meta-1", "leader", "rack=r1", "6.0 GiB", "4.0 GiB", "1 of 2", "/mnt/q"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Every command that people see explains itself.
func TestHelp(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		if c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
		if c.Runnable() && c.Example == "" && c.Name() != "version" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())

	dir := t.TempDir()
	if err := writeManPages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "quern-up.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH QUERN\\-UP 1", ".SH EXAMPLES", `\fB\-\-chunk\-servers\fR`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("quern-up.1 has no %q", want)
		}
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args []string
		exit int
		says string
	}{
		{[]string{"quern", "version"}, 0, "quern "},
		{[]string{"quern", "up"}, 2, "--data DIR is needed"},
		{[]string{"quern", "up", "--data", "x", "--log-level", "loud"}, 2, "--log-level loud"},
		{[]string{"quern", "status", "--data", filepath.Join(t.TempDir(), "none")}, 1, "is not a data directory"},
		{[]string{"quern", "frobnicate"}, 1, "unknown command"},
		{[]string{"/sbin/mount.fuse.quern", "onlyone"}, 2, "mount -t fuse.quern SOURCE DIR"},
	} {
		var stdout, stderr bytes.Buffer
		exit := run(c.args, &stdout, &stderr)
		if said := stdout.String() + stderr.String(); exit != c.exit || !strings.Contains(said, c.says) || strings.Count(said, "\n") > 1 {
			t.Errorf("%v: exit %d, %q; wanted %d, %q", c.args, exit, said, c.exit, c.says)
		}
	}
}

func TestStopOrder(t *testing.T) {
	var p process
	var order []string
	for _, name := range []string{"meta", "chunkd", "mount"} {
		p.onStop(name, func(context.Context) error {
			order = append(order, name)
			if name == "chunkd" {
				return errors.New("broken")
			}
			return nil
		})
	}
	err := p.stop(t.Context())
	if got := strings.Join(order, " "); got != "mount chunkd meta" {
		t.Errorf("order: %s", got)
	}
	if err == nil || !strings.Contains(err.Error(), "stop chunkd: broken") {
		t.Errorf("%v", err)
	}
	if err := p.stop(t.Context()); err != nil || len(order) != 3 {
		t.Errorf("a second stop: %v, %v", err, order)
	}
}

func TestNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if nobodyReads(w) || nobodyReads(new(strings.Builder)) {
		t.Error("somebody reads")
	}
	r.Close()
	if !nobodyReads(w) {
		t.Error("the reader has gone")
	}
}
