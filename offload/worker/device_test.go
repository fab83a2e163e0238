package worker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// probeScript is a program that answers a probe as a shell script does.
func probeScript(t *testing.T, script string) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Config{Command: []string{file}}
}

func TestProbe(t *testing.T) {
	good := `echo "{\"runtime\":\"opencl\",\"devices\":[{\"id\":\"0.0\",\"name\":\"$*\"}]}"`
	cfg := probeScript(t, good)
	cfg.CacheDir = "/c"
	r, err := Probe(t.Context(), cfg, "opencl", "0.0", 10*time.Second)
	if err != nil || len(r.Devices) != 1 || r.Devices[0].ID != "0.0" || r.Devices[0].Name != "--probe opencl --device 0.0 --cache /c" {
		t.Errorf("%+v, %v", r, err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"status":    {good + "; echo why >&2; exit 3", "why (exit status 3)"},
		"library":   {"echo no GPU here; echo more; exit 3", "probing opencl: no GPU here (exit status 3)"},
		"nothing":   {"true", "makes no sense"},
		"other":     {`echo '{"runtime":"cuda"}'`, `about "cuda"`},
		"nameless":  {`echo '{"runtime":"opencl","devices":[{"name":"x"}]}'`, `called ""`},
		"twice":     {`echo '{"runtime":"opencl","devices":[{"id":"0"},{"id":"0"}]}'`, `called "0"`},
		"flood":     {"yes", "probing opencl"},
		"killed":    {"kill -9 $$", "killed"},
		"trailing":  {good + "; echo more", "makes no sense"},
		"bad names": {`echo '{"runtime":"opencl","devices":[{"id":"a b"}]}'`, `called "a b"`},
	} {
		if r, err := Probe(t.Context(), probeScript(t, c.script), "opencl", "", 10*time.Second); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", name, r, err, c.want)
		}
	}
	if _, err := Probe(t.Context(), Config{Command: []string{"/nonexistent"}}, "opencl", "", time.Second); err == nil {
		t.Error("a program that does not exist has answered")
	}
}

// TestProbeHangs: a probe that does not end is killed with all its children.
func TestProbeHangs(t *testing.T) {
	start := time.Now()
	_, err := Probe(t.Context(), probeScript(t, "sleep 600 & sleep 600"), "opencl", "", 200*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no answer in 200ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Minute {
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Probe(ctx, probeScript(t, "sleep 600"), "opencl", "", time.Hour); err == nil {
		t.Error("a cancelled probe has answered")
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"runtime":"opencl","devices":[{"id":"0.0","name":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeReport(data, "opencl")
		if err != nil {
			return
		}
		for _, d := range r.Devices {
			if d.ID == "" || strings.ContainsAny(d.ID, " \n/") {
				t.Fatalf("a device called %q", d.ID)
			}
		}
	})
}
