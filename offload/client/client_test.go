package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fake is a directory with the files of a mount's /.compute, as they would be.
func fake(t *testing.T) (*Client, string) {
	t.Helper()
	mnt := t.TempDir()
	for _, d := range []string{"queue", "errors", "by-name/a/out"} {
		if err := os.MkdirAll(filepath.Join(mnt, ".compute", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return At(mnt), filepath.Join(mnt, ".compute")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestClient(t *testing.T) {
	c, dir := fake(t)
	job, err := c.Submit("a", []byte("spec"))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "queue", "a.yaml")); err != nil || string(raw) != "spec" {
		t.Errorf("%q, %v", raw, err)
	}
	write(t, filepath.Join(dir, "by-name/a/state"), "running\n")
	write(t, filepath.Join(dir, "by-name/a/reason"), "1 of 2 tasks done\n")
	write(t, filepath.Join(dir, "by-name/a/ctl"), "")
	if state, reason, err := job.State(); state != "running" || reason != "1 of 2 tasks done" || err != nil {
		t.Errorf("%s, %s, %v", state, reason, err)
	}
	if err := job.Control("priority 3"); err != nil {
		t.Error(err)
	}
	if got, _ := job.Read("ctl"); got != "priority 3" {
		t.Errorf("ctl %q", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if state, err := job.Wait(ctx); state != "running" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s, %v", state, err)
	}
	write(t, filepath.Join(dir, "by-name/a/state"), "failed\n")
	if state, err := job.Wait(context.Background()); state != "failed" || err != nil {
		t.Errorf("%s, %v", state, err)
	}
	if names, err := c.Jobs(); len(names) != 1 || names[0] != "a" || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	if _, _, err := c.Job("b").State(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestRefused(t *testing.T) {
	c, dir := fake(t)
	// The rename fails as that of a bad job file does, only with another errno.
	if err := os.MkdirAll(filepath.Join(dir, "queue/a.yaml/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "errors/a"), "line 3: wrong\n")
	_, err := c.Submit("a", []byte("spec"))
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != "line 3: wrong" || err.Error() != "the job a was not taken: line 3: wrong" {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "queue/.a*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, name := range []string{"", ".x", "a/b"} {
		if _, err := c.Submit(name, nil); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
}
