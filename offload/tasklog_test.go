package offload

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"quernfs/internal/wire"
)

// readLog is what jobs/ID/tasks/N shows of a stream, by its size and by reading.
func readLog(t *testing.T, r *rig, job uint64, stream string) string {
	t.Helper()
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	in := uint64(0)
	for at, path := (node{kind: kindTask, job: job}).ino(), []string{stream}; len(path) > 0; path = path[1:] {
		a, err := o.Lookup(t.Context(), rootCred, at, path[0])
		if err != nil {
			t.Fatal(err)
		}
		in = a.Ino
	}
	a, err := o.GetAttr(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	f, err := o.Open(t.Context(), rootCred, in, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := make([]byte, 64<<20)
	n := 0
	for err == nil {
		var k int
		k, err = f.ReadAt(t.Context(), text[n:min(len(text), n+100_000)], int64(n))
		n += k
	}
	if err != io.EOF || uint64(n) < a.Size {
		t.Errorf("%d bytes were read of %d: %v", n, a.Size, err)
	}
	return string(text[:n])
}

// TestLogs: what a program prints is kept whole up to a limit, then its beginning and
// its end; while it runs what it has printed so far is seen, and stays when it was
// cancelled.
func TestLogs(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startPrograms("a", nil)
	r.write("/x", "text\n")
	program := func(name, script, more string) uint64 {
		return r.submit(name, "version: 1\ninputs: /x\nretries: 0\n"+more+"exec: {argv: [sh, -c, '"+script+"']}\n")
	}
	var lines strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&lines, "line %d\n", i+1)
	}
	all := lines.String()
	const print = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done"
	whole := program("whole", "("+print+") >&2; echo done > /out/result; "+print, "")
	long := program("long", "("+print+") >&2; exit 1", "log_limit: 64KiB\n")
	short := program("short", "echo one >&2; echo two; echo done > /out/result", "")
	live := program("live", "echo first >&2; sleep 1000", "")

	if job, tasks := r.wait(whole); job.State != StateSucceeded || tasks[0].StderrLog == 0 || tasks[0].StdoutLog == 0 {
		t.Errorf("%s: %s, %v", job.State, job.Reason, tasks[0])
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if got := readLog(t, r, whole, stream); got != all {
			t.Errorf("%s: %d bytes of %d", stream, len(got), len(all))
		}
	}
	r.wait(long)
	want := fmt.Sprintf("%s\n[%d bytes are left out here: log_limit is 64 KiB]\n%s", all[:32<<10], len(all)-64<<10, all[len(all)-32<<10:])
	if got := readLog(t, r, long, "stderr"); got != want {
		t.Errorf("%d bytes, not %d", len(got), len(want))
	}
	if _, tasks := r.wait(short); tasks[0].StderrLog != 0 || readLog(t, r, short, "stderr") != "one\n" || readLog(t, r, short, "stdout") != "two\n" {
		t.Errorf("%v", tasks[0])
	}
	r.until("it is seen while it runs", func() bool { return readLog(t, r, live, "stderr") == "first\n" })
	if err := Cancel(t.Context(), r, rootCred, live, "enough"); err != nil {
		t.Fatal(err)
	}
	r.until("the program has ended", func() bool { return r.busy() == 0 })
	if got := readLog(t, r, live, "stderr"); got != "first\n" {
		t.Errorf("after the end: %q", got)
	}
	// Another's file in its place is not shown.
	job, _, err := getJob(t.Context(), r, live, false)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.ReadDirInode(t.Context(), job.OutDir)
	if err != nil || len(entries) != 1 || entries[0].Name != logDir {
		t.Fatalf("%v, %v", entries, err)
	}
	name := logName(0, 1, "stderr")
	if err := r.Remove(t.Context(), entries[0].Ino, name, false); err != nil {
		t.Fatal(err)
	}
	secret := r.write("/secret", "secret\n")
	r.must(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: secret, Mask: wire.SetUID, Uid: 5}}})
	r.must(&wire.Command{Op: &wire.Command_Link{Link: &wire.Link{Ino: secret, NewParent: entries[0].Ino, NewName: name}}})
	if got := readLog(t, r, live, "stderr"); got != "" {
		t.Errorf("%q is shown", got)
	}
}
