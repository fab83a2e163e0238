package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Report is what `quern worker --probe RUNTIME` prints. Fields are only ever
// added.
type Report struct {
	Runtime string   `json:"runtime"`
	Devices []Device `json:"devices"`
}

// Device is one device of a runtime.
type Device struct {
	ID          string `json:"id"` // within its runtime and host
	Name        string `json:"name"`
	Vendor      string `json:"vendor"`
	Platform    string `json:"platform"`
	Version     string `json:"version"`
	Driver      string `json:"driver"`
	Type        string `json:"type"`   // gpu, cpu, accelerator, other
	Memory      int64  `json:"memory"` // bytes
	LocalMemory int64  `json:"local_memory"`
	MaxAlloc    int64  `json:"max_alloc"` // bytes of one buffer
	Units       int    `json:"units"`
	MaxGroup    int    `json:"max_group"`
	Simulated   bool   `json:"simulated,omitempty"` // a model of a device
}

// maxReport bounds what a probe may print, in bytes.
const maxReport = 1 << 20

// Probe asks for the devices of a runtime in a process of its own: command with
// --probe RUNTIME. With a device it also has that device compute a known answer.
// Whatever but a report and exit status 0 in time is an error: then the runtime
// is absent, or the device of no use.
func Probe(ctx context.Context, cfg Config, runtime, device string, limit time.Duration) (*Report, error) {
	if len(cfg.Command) == 0 {
		return nil, fmt.Errorf("no worker command is configured")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s", limit))
	defer cancel()
	args := append(cfg.Command[1:len(cfg.Command):len(cfg.Command)], "--probe", runtime)
	if device != "" {
		args = append(args, "--device", device)
	}
	if cfg.CacheDir != "" {
		args = append(args, "--cache", cfg.CacheDir)
	}
	cmd := exec.CommandContext(ctx, cfg.Command[0], args...)
	var stdout limitedBuffer
	stderr := NewTail(4 << 10)
	cmd.Env, cmd.Dir = cfg.environ(), "/"
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if text := strings.TrimSpace(stderr.String()); text != "" {
			lines := strings.Split(text, "\n")
			return nil, fmt.Errorf("probing %s: %s (%w)", runtime, lines[len(lines)-1], err)
		}
		// What a library has to say before it ends the process.
		if line, _, _ := strings.Cut(strings.TrimSpace(stdout.b.String()), "\n"); line != "" && len(line) < 500 {
			return nil, fmt.Errorf("probing %s: %s (%w)", runtime, line, err)
		}
		return nil, fmt.Errorf("probing %s: %w", runtime, err)
	}
	return decodeReport(stdout.b.Bytes(), runtime)
}

// decodeReport reads what a probe has printed.
func decodeReport(b []byte, runtime string) (*Report, error) {
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("probing %s: its report makes no sense: %w", runtime, err)
	}
	if r.Runtime != runtime {
		return nil, fmt.Errorf("probing %s: the report is about %q", runtime, r.Runtime)
	}
	seen := map[string]bool{}
	for _, d := range r.Devices {
		if d.ID == "" || len(d.ID) > 64 || strings.ContainsAny(d.ID, " \n/") || seen[d.ID] {
			return nil, fmt.Errorf("probing %s: the report has a device called %q", runtime, d.ID)
		}
		seen[d.ID] = true
	}
	return r, nil
}

// limitedBuffer refuses what is too much for a report.
type limitedBuffer struct{ b bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.b.Len()+len(p) > maxReport {
		return 0, fmt.Errorf("a report of more than %d bytes", maxReport)
	}
	return b.b.Write(p)
}
