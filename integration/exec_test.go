package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// noSandbox says why quern cannot run programs here; "" if it can.
func noSandbox(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(quern, "worker", "--probe", "exec").CombinedOutput()
	if err != nil {
		return strings.TrimSpace(string(out))
	}
	var report struct{ Runtime string }
	if err := json.Unmarshal(out, &report); err != nil || report.Runtime != "exec" {
		t.Fatalf("the probe says %q (%v)", out, err)
	}
	return ""
}

// needSandbox skips a test where quern cannot run programs.
func needSandbox(t *testing.T) {
	t.Helper()
	needMount(t)
	if why := noSandbox(t); why != "" {
		t.Skipf("programs cannot be run in a sandbox here: %s", why)
	}
}

// runJob submits a job file and waits for its end.
func runJob(t *testing.T, c *cluster, name, spec string) (state string) {
	t.Helper()
	file := filepath.Join(c.mnt, "."+name+".yaml")
	writeFile(t, file, spec)
	if err := os.Rename(file, filepath.Join(c.mnt, ".compute/queue", name+".yaml")); err != nil {
		why, _ := os.ReadFile(filepath.Join(c.mnt, ".compute/errors", name))
		t.Fatalf("%s: %v: %s", name, err, why)
	}
	return readFile(t, filepath.Join(c.mnt, ".compute/by-name", name, "wait"))
}

// TestExec: a Python program reads its inputs in the mount and writes results
// into it, as the user whose job it is.
func TestExec(t *testing.T) {
	needSandbox(t)
	needTool(t, "/usr/bin/python3")
	c := startCluster(t, "--exec-allow", "python3", "--exec-allow", "sh")
	shell(t, c.mnt, `mkdir data code && for i in 1 2 3; do seq $i 1000 > data/$i.csv; done && chmod 700 data/*
cat > code/total.py <<'END'
import json, os, sys
totals = {}
for name in sys.argv[1:]:
    with open(name) as f:
        totals[os.path.basename(name)] = sum(map(int, f))
with open("/out/totals.json", "w") as f:
    json.dump(totals, f, sort_keys=True)
print("done", os.environ["QUERN_PHASE"], os.getuid())
END
`)
	const spec = `version: 1
exec:
  argv: [python3, /in/code/total.py, "{inputs}"]
  binds: [/code]
inputs: /data/*.csv
resources: {memory: 512MiB}
`
	if got := runJob(t, c, "total", spec); got != "succeeded: all tasks done\n" {
		t.Fatalf("%s", got)
	}
	job := filepath.Join(c.mnt, ".compute/by-name/total")
	if got := readFile(t, filepath.Join(job, "out/totals.json")); got != `{"1.csv": 500500, "2.csv": 500499, "3.csv": 500497}` {
		t.Errorf("%s", got)
	}
	if got := readFile(t, filepath.Join(job, "tasks/0/stdout")); got != "done single 0\n" {
		t.Errorf("stdout: %q", got)
	}

	// Where the files lie tells that nothing was copied.
	if got := runJob(t, c, "mounts", "version: 1\nexec: {argv: [sh, -c, 'grep \" /in/\" /proc/self/mountinfo']}\ninputs: /data\n"); !strings.HasPrefix(got, "succeeded") {
		t.Fatal(got)
	}
	if got := readFile(t, filepath.Join(c.mnt, ".compute/by-name/mounts/out/output")); strings.Count(got, " - fuse.quern ") != 3 {
		t.Errorf("the inputs are mounted so:\n%s", got)
	}

	t.Run("owner", func(t *testing.T) {
		// Another user, who can reach the mount but not the files of root.
		if err := os.Chmod(filepath.Dir(c.mnt), 0o755); err != nil {
			t.Fatal(err)
		}
		shell(t, c.mnt, "mkdir mine && cp data/1.csv mine/x && chown -R 1234:1235 mine && chmod 600 mine/x")
		as := func(line string) (string, error) {
			cmd := exec.Command("setpriv", "--reuid", "1234", "--regid", "1235", "--clear-groups", "sh", "-c", line)
			cmd.Dir = c.mnt
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		file := "printf 'version: 1\\nexec: {argv: [sh, -c, \"id -u; wc -l < /in/mine/x; (cat /in/data/1.csv || echo no) 2> /dev/null; echo x > /out/made\"]}\\ninputs: /mine/x\\n' > mine/mine.yaml && mv mine/mine.yaml .compute/queue/ && cat .compute/by-name/mine/wait"
		if out, err := as(file); err != nil || out != "succeeded: all tasks done\n" {
			t.Fatalf("%v: %s", err, out)
		}
		if got := readFile(t, filepath.Join(c.mnt, ".compute/by-name/mine/tasks/0/stdout")); got != "1234\n1000\nno\n" {
			t.Errorf("%q", got)
		}
		fi, err := os.Stat(filepath.Join(c.mnt, ".compute/by-name/mine/out/made"))
		if err != nil || fi.Sys().(*syscall.Stat_t).Uid != 1234 {
			t.Errorf("%v, %v", fi, err)
		}
	})

	t.Run("refused", func(t *testing.T) {
		path := filepath.Join(c.mnt, "perl.yaml")
		writeFile(t, path, "version: 1\nexec: {argv: [perl, -e, 1]}\ninputs: /data\n")
		err := os.Rename(path, filepath.Join(c.mnt, ".compute/queue/perl.yaml"))
		if !errors.Is(err, unix.EACCES) {
			t.Errorf("a program that is not allowed: %v", err)
		}
		if got := readFile(t, filepath.Join(c.mnt, ".compute/errors/perl")); !strings.Contains(got, "line 2: no host allows the program perl") {
			t.Errorf("%s", got)
		}
		writeFile(t, path, "version: 1\nexec: {argv: [sh]}\nresources: {gpu: 16}\ninputs: /data\n")
		if err := os.Rename(path, filepath.Join(c.mnt, ".compute/queue/gpu.yaml")); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("sixteen GPUs: %v", err)
		}
	})

	t.Run("end", func(t *testing.T) {
		// An agent that ends while a program uses the mount.
		shell(t, c.mnt, "printf 'version: 1\\nexec: {argv: [sh, -c, \"exec 3< /in/data/1.csv; while :; do sleep 0.1; done\"]}\\ninputs: /data/1.csv\\n' > .x && mv .x .compute/queue/long.yaml")
		eventually(t, patience, func() error {
			if s := readFile(t, filepath.Join(c.mnt, ".compute/by-name/long/state")); s != "running\n" {
				return errors.New(s)
			}
			return nil
		})
		c.stop()
		c.start()
		eventually(t, patience, func() error {
			if n := readFile(t, filepath.Join(c.mnt, ".compute/by-name/long/tasks/0/attempt")); n != "2\n" {
				return errors.New("attempt " + n)
			}
			return nil
		})
		// And one that is killed: its programs die with it.
		programs := func() (all []string) {
			files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
			for _, f := range files {
				if text, _ := os.ReadFile(f); strings.Contains(string(text), filepath.Base(filepath.Dir(c.mnt))+"/data/compute/exec/") &&
					strings.Contains(string(text), " /in/data/1.csv ") {
					all = append(all, filepath.Dir(f))
				}
			}
			return all
		}
		eventually(t, patience, func() error {
			if len(programs()) == 0 {
				return errors.New("no program runs")
			}
			return nil
		})
		c.killAll()
		eventually(t, patience, func() error {
			if all := programs(); len(all) > 0 {
				return errors.New(strings.Join(all, " ") + " live on")
			}
			return nil
		})
		c.start()
		shell(t, c.mnt, "rm .compute/queue/long.yaml")
	})
}
