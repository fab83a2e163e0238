package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJobOfUser drives jobs as another user than root, with a shell alone: the
// limit on his jobs, the reason on the file that is left behind, what ctl takes,
// and the end by removing the file from the queue.
func TestJobOfUser(t *testing.T) {
	needTool(t, "setpriv", "setfattr", "getfattr")
	c := startCluster(t, "--jobs-per-user", "1")
	shell(t, c.mnt, "mkdir home && echo one two one > home/a.txt && chown -R 65534:65534 home && chmod 755 .")
	as := func(line string) string {
		t.Helper()
		return shell(t, c.mnt, `setpriv --reuid 65534 --regid 65534 --clear-groups bash -euc '`+line+`'`)
	}
	const spec = `printf "version: 1\nkernel: wordcount\ninputs: /home/a.txt\narray: %s\n" `
	as(spec + `100000 > home/big.yaml && mv home/big.yaml .compute/queue/big.yaml`)
	out, err := tryShell(c.mnt, `setpriv --reuid 65534 --regid 65534 --clear-groups bash -euc '`+spec+`2 > home/more.yaml && mv home/more.yaml .compute/queue/more.yaml'`)
	if err == nil || !strings.Contains(strings.ToLower(out), "quota exceeded") {
		t.Errorf("the job beyond the limit: %v, %s", err, out)
	}
	for _, where := range []string{"cat .compute/errors/more", "getfattr --only-values -n user.compute.error home/more.yaml"} {
		if got := as(where); !strings.Contains(got, "uid 65534 has 1 jobs that have not ended") {
			t.Errorf("%s: %q", where, got)
		}
	}
	as("echo pause > .compute/by-name/big/ctl; echo priority -5 > .compute/by-name/big/ctl; echo resume > .compute/by-name/big/ctl")
	if out, err := tryShell(c.mnt, "echo explode > .compute/by-name/big/ctl"); err == nil || !strings.Contains(out, "Invalid argument") {
		t.Errorf("an unknown verb: %v, %s", err, out)
	}
	as("rm .compute/queue/big.yaml")
	if got := shell(t, c.mnt, "cat .compute/by-name/big/wait"); !strings.HasPrefix(got, "cancelled: cancelled by uid 65534: its file was removed from the queue") {
		t.Errorf("%q", got)
	}
	as("mv home/more.yaml .compute/queue/more.yaml")
	if got := as("cat .compute/by-name/more/wait .compute/by-name/more/out/output.00001"); got != "succeeded: all tasks done\n2 one\n1 two\n" {
		t.Errorf("%q", got)
	}
	// A result in his own directory is his.
	as(`setfattr -n user.compute.run -v "$(printf "kernel: wordcount\noutput: /home/{file}.count")" home/a.txt; cat .compute/jobs/$(getfattr --only-values -n user.compute.job home/a.txt)/wait`)
	st, err := os.Stat(filepath.Join(c.mnt, "home", "a.txt.count"))
	if err != nil {
		t.Fatal(err)
	}
	if got := as("stat -c %u home/a.txt.count; getfattr -n user.compute.provenance home/a.txt.count | grep -c kernel"); got != "65534\n1\n" || st.Size() == 0 {
		t.Errorf("%q", got)
	}
	// Nothing of what is refused depends on the mount.
	c.stop()
	c.start()
	if got := shell(t, c.mnt, "getfattr --only-values -n user.compute.state home/a.txt"); got != "succeeded: all tasks done" {
		t.Errorf("after a restart: %q", got)
	}
}
