package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJobCommandsOfUser drives `quern job` as a user who has no certificate, inside
// the mount and by --mount, and follows what a program prints while it runs.
func TestJobCommandsOfUser(t *testing.T) {
	needSandbox(t)
	needTool(t, "setpriv")
	c := startCluster(t, "--exec-allow", "sh")
	shell(t, c.mnt, "mkdir home && echo one two one > home/a.txt && chown -R 65534:65534 home && chmod 755 .")
	if err := os.Chmod(filepath.Dir(c.mnt), 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join("/tmp", filepath.Base(filepath.Dir(c.mnt))+"-user") // where the user may run it
	shell(t, c.mnt, "install -m 755 "+quern+" "+bin)
	t.Cleanup(func() { os.Remove(bin) })
	as := func(dir, line string) (string, error) {
		return tryShell(dir, `setpriv --reuid 65534 --regid 65534 --clear-groups bash -euc '`+strings.ReplaceAll(line, "quern ", bin+" ")+`'`)
	}
	must := func(dir, line, want string) {
		t.Helper()
		if got, err := as(dir, line); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v, %q, not %q", line, err, got, want)
		}
	}
	home := filepath.Join(c.mnt, "home")
	must(home, `printf "version: 1\nkernel: wordcount\ninputs: /home/a.txt\n" > count.yaml && quern job submit count.yaml --wait`, "count: succeeded (all tasks done)")
	must(home, "quern job ls", "count")
	must(home, "quern job ls --state succeeded --json", `"name": "count"`)
	must("/", "quern job show count --mount "+c.mnt, "1 of 1 tasks done")
	must("/", "quern job top --once --mount "+c.mnt, "HOST")
	must(home, "quern job explain count", "job 1, count: succeeded")
	must(home, "quern job wait count", "")
	must(home, "quern job logs count", "one")
	if got, err := as(home, "quern job ls --state faild"); err == nil || !strings.Contains(got, "faild") || !strings.Contains(got, "failed") {
		t.Errorf("a state that there is not: %v, %q", err, got)
	}

	// It prints a line, then waits to be stopped. All may read it, none but its owner may
	// stop it.
	shell(t, c.mnt, `printf 'version: 1\nexec: {argv: [sh, -c, "echo begun >&2; echo done > /out/x; sleep 1000"]}\ninputs: /home/a.txt\nvisibility: all\n' > loop.yaml && mv loop.yaml .compute/queue/loop.yaml`)
	must(home, "until quern job ls --state running | grep -q loop; do sleep 0.1; done; timeout 60 tail -n +1 -f ../.compute/by-name/loop/tasks/0/stderr | head -1", "begun")
	must(home, "timeout 60 quern job logs loop -f | head -2", "begun")
	if got, err := as(home, "quern job cancel loop"); err == nil || !strings.Contains(got, "belongs to") {
		t.Errorf("another's job was cancelled: %v, %q", err, got)
	}
	shell(t, c.mnt, `printf 'version: 1\nkernel: sha256sum\ninputs: /home/a.txt\n' > private.yaml && mv private.yaml .compute/queue/private.yaml`)
	if got, err := as(home, "quern job show private --json"); err != nil || strings.Contains(got, "a.txt") {
		t.Errorf("another's job: %v, %q", err, got)
	}
	if got, err := as(home, "quern job logs private"); err == nil || !strings.Contains(got, "ermission denied") {
		t.Errorf("the logs of another's job: %v, %q", err, got)
	}
	shell(t, c.mnt, quern+" job cancel loop")
	if got, err := as(home, "timeout 60 quern job logs loop -f"); err != nil || !strings.Contains(got, "is cancelled") {
		t.Errorf("%v, %q", err, got)
	}
	must(home, "quern job priority count 3 2>&1 || true", "has ended")
	must(home, "quern job rm count", "")
	if got, err := as(home, "quern job ls"); err != nil || strings.Contains(got, "count") {
		t.Errorf("%v, %q", err, got)
	}
	if got, err := as("/", "printf qxx > "+c.mnt+"/.compute/api; cat "+c.mnt+"/.compute/api"); err != nil {
		t.Errorf("%v, %q", err, got)
	}
}

// TestJobUsage: of jobs that have ended the oldest are forgotten, and what they used is
// told to their owner, by `quern job usage` and in the file that sacct's users know.
func TestJobUsage(t *testing.T) {
	needTool(t, "setpriv")
	c := startCluster(t, "--ended-jobs-per-user", "2")
	shell(t, c.mnt, "mkdir home && echo one two one > home/a.txt && chown -R 65534:65534 home && chmod 755 .")
	if err := os.Chmod(filepath.Dir(c.mnt), 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join("/tmp", filepath.Base(filepath.Dir(c.mnt))+"-usage") // where the user may run it
	shell(t, c.mnt, "install -m 755 "+quern+" "+bin)
	t.Cleanup(func() { os.Remove(bin) })
	as := func(line string) string {
		t.Helper()
		return shell(t, filepath.Join(c.mnt, "home"), `setpriv --reuid 65534 --regid 65534 --clear-groups bash -euc '`+strings.ReplaceAll(line, "quern ", bin+" ")+`'`)
	}
	for _, name := range []string{"first", "second", "third", "fourth"} {
		as(`printf "version: 1\nkernel: wordcount\ninputs: /home/a.txt\n" > ` + name + `.yaml && quern job submit ` + name + `.yaml --wait`)
	}
	shell(t, c.mnt, `printf 'version: 1\nkernel: sha256sum\ninputs: /home/a.txt\n' > roots.yaml && `+quern+` job submit roots.yaml --wait`)
	as("until test ! -e ../.compute/by-name/first && test ! -e ../.compute/by-name/second; do sleep 0.1; done; test -e ../.compute/by-name/third; test -e ../.compute/by-name/fourth")

	if got := as("cut -d\\| -f2,4,5,16 ../.compute/accounting"); got != "JobName|Partition|State|ExitCode\n"+
		"first|wordcount@1|COMPLETED|0:0\nsecond|wordcount@1|COMPLETED|0:0\nthird|wordcount@1|COMPLETED|0:0\nfourth|wordcount@1|COMPLETED|0:0\n" {
		t.Errorf("%q", got)
	}
	if got := shell(t, c.mnt, "wc -l < .compute/accounting; "+quern+" job usage --by kernel --json"); !strings.HasPrefix(got, "6\n") || !strings.Contains(got, "sha256sum@1") || !strings.Contains(got, "wordcount@1") {
		t.Errorf("%q", got)
	}
	for _, line := range []string{"quern job usage --json", "quern job usage --by day --since 2d --json", "quern job usage --by kernel,user,day --json --mount " + c.mnt} {
		if got := as(line); strings.Count(got, `"jobs"`) != 1 || !strings.Contains(got, `"jobs": 4`) || !strings.Contains(got, `"attempts": 4`) {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := as("quern job usage --until 1d --json; quern job usage --since 2000-01-01 --until 2000-12-31 | wc -l"); got != "[]\n1\n" {
		t.Errorf("%q", got)
	}
	if got, err := tryShell(c.mnt, quern+" job usage --by users"); err == nil || !strings.Contains(got, "did you mean") {
		t.Errorf("%v, %q", err, got)
	}
	// The certificate sees all, after a restart, too.
	c.stop()
	c.start()
	if got := shell(t, c.mnt, quern+" job usage --json --data "+c.data); strings.Count(got, `"uid"`) != 2 || !strings.Contains(got, `"jobs": 4`) {
		t.Errorf("%q", got)
	}
}
