package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/kernels"
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

// TestOwnKernelsAndRules: two users who distrust each other have kernels and rules of
// their own, on two mounts, and neither gets anything of the other's to run or to see.
func TestOwnKernelsAndRules(t *testing.T) {
	needTool(t, "setpriv")
	c := startCluster(t)
	if err := os.Chmod(filepath.Dir(c.mnt), 0o755); err != nil {
		t.Fatal(err)
	}
	shell(t, c.mnt, "chmod 755 . && mkdir -m 1777 shared && echo one two one > a.txt")
	const ann, bob = "40001", "40002"
	try := func(uid, line string) (string, error) {
		return tryShell(c.mnt, "setpriv --reuid "+uid+" --regid "+uid+" --clear-groups bash -euc '"+line+"'")
	}
	as := func(uid, line string) string {
		t.Helper()
		out, err := try(uid, line)
		if err != nil {
			t.Errorf("%s: %s: %v, %q", uid, line, err, out)
		}
		return out
	}
	refused := func(uid, line, want string) {
		t.Helper()
		if out, err := try(uid, line); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s: %v, %q, not %q", uid, line, err, out, want)
		}
	}
	wasm, _, err := kernels.Module()
	if err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(c.mnt, "module.wasm")
	writeFile(t, module, string(wasm))
	shell(t, c.mnt, "chmod 644 module.wasm")
	kernel := func(uid, name, args string) {
		t.Helper()
		dir := ".compute/users/" + uid + "/kernels/" + name + "/1"
		as(uid, "mkdir -p "+dir+" && cp module.wasm "+dir+"/k.wasm && printf \"version: 1\\nargs: ["+args+"]\\n\" > "+dir+"/kernel.yaml")
	}
	job := func(uid, name, kernel string) string {
		return "printf \"version: 1\\nkernel: " + kernel + "\\ninputs: /a.txt\\n\" > shared/" + name + ".yaml && mv shared/" + name + ".yaml .compute/queue/" + name + ".yaml && cat .compute/by-name/" + name + "/wait .compute/by-name/" + name + "/out/output"
	}
	// Bob is first, and tries to be Ann, by every way.
	for _, line := range []string{
		"mkdir .compute/users/" + ann, "mkdir .compute/users/ann", "ln -s " + bob + " .compute/users/" + ann, "touch .compute/users/" + ann,
		"mkdir shared/d && mv shared/d .compute/users/" + ann, "mkdir .compute/users/" + bob + " && mv .compute/users/" + bob + " .compute/users/" + ann,
	} {
		refused(bob, line, "not permitted")
	}
	// Ann's wordcount is a digest; the shared name is the shared kernel's for both.
	kernel(ann, "wordcount", "sha256sum")
	if got := as(ann, job(ann, "own", "~/wordcount")); !strings.Contains(got, "/a.txt") {
		t.Errorf("Ann's own: %q", got)
	}
	for uid, name := range map[string]string{ann: "ashared", bob: "bshared"} {
		if got := as(uid, job(uid, name, "wordcount")); !strings.Contains(got, "2 one") {
			t.Errorf("the shared kernel: %q", got)
		}
	}
	if got := shell(t, c.mnt, job("0", "rshared", "wordcount")); !strings.Contains(got, "2 one") {
		t.Errorf("root's: %q", got)
	}
	refused(bob, "ls .compute/users/"+ann, "ermission denied")
	refused(bob, job(bob, "steal", "~"+ann+"/wordcount"), "ermission denied")
	refused(bob, "cat shared/steal.yaml >/dev/null; cat .compute/by-name/own/out/output", "ermission denied")
	as(ann, "chmod 755 .compute/users/"+ann)
	if got := as(bob, job(bob, "lent", "~"+ann+"/wordcount")); !strings.Contains(got, "/a.txt") {
		t.Errorf("a kernel that was lent: %q", got)
	}

	// Rules: each is for its owner's files alone.
	rule := func(uid, name, kernel string) string {
		return "mkdir -p .compute/users/" + uid + "/rules && printf \"version: 1\\nmatch: {path: /shared}\\njob: {kernel: " + kernel + "}\\n\" > shared/." + name + " && mv shared/." + name + " .compute/users/" + uid + "/rules/" + name + ".yaml"
	}
	as(ann, rule(ann, "mine", "~/wordcount"))
	refused(ann, rule(ann, "typo", "~/wordcont"), "")
	if got := as(ann, "cat .compute/errors/~typo"); !strings.Contains(got, "there is no kernel ~/wordcont") {
		t.Errorf("%q", got)
	}
	refused(bob, "cat .compute/errors/~typo", "No such file")
	refused(ann, "printf nonsense > shared/.nonsense; cp shared/.nonsense .compute/users/"+ann+"/rules/place.yaml", "Invalid argument")
	refused(bob, rule(ann, "trap", "wordcount"), "ermission denied")
	as(ann, "rm .compute/users/"+ann+"/rules/place.yaml; echo hers > shared/ann.txt")
	as(bob, "echo his > shared/bob.txt")
	shell(t, c.mnt, "echo roots > shared/root.txt")
	if got := as(ann, "cat .compute/by-name/~mine-ann.txt-*/wait; ls .compute/by-name | grep -c ^~mine; stat -c %u .compute/by-name/~mine-ann.txt-*/out/output"); got != "succeeded: all tasks done\n1\n"+ann+"\n" {
		t.Errorf("%q", got)
	}
	as(ann, "rm .compute/users/"+ann+"/rules/mine.yaml; echo more > shared/again.txt; ! ls .compute/by-name | grep -q again")
}
