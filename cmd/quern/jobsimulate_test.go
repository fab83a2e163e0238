package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quernfs/offload/place/sim"
)

func simulate(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(append([]string{"quern", "job", "simulate"}, args...), &out, &errs)
	return out.String(), errs.String(), status
}

func TestSimulate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.yaml")
	const workload = `version: 1
hosts: [{count: 3, class: cpu, slots: 2}]
kernels: {k: {classes: {cpu: {rate: 50MB}}}}
jobs: [{user: ann, kernel: k, tasks: 20, bytes: 64MB}]
`
	if err := os.WriteFile(file, []byte(workload), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, status := simulate(t, file, "--json", "--seed", "3")
	var rs []sim.Result
	if err := json.Unmarshal([]byte(out), &rs); err != nil || status != 0 || len(rs) != 3 {
		t.Fatalf("%d, %v: %s %s", status, err, out, errs)
	}
	for _, r := range rs {
		if r.Tasks != 20 || r.Left != 0 || r.Makespan <= 0 || len(r.Waiting) != 1 || r.Waiting[0].User != "ann" {
			t.Errorf("%+v", r)
		}
	}
	if out, _, status = simulate(t, file, "--policy", "ours"); status != 0 || !strings.Contains(out, "MAKESPAN") || !strings.Contains(out, "ann") {
		t.Errorf("%d: %s", status, out)
	}
	printed, _, status := simulate(t, "--print", "--workload", "day")
	if w, err := sim.Parse([]byte(printed)); status != 0 || err != nil || len(w.Jobs) == 0 {
		t.Errorf("%d, %v", status, err)
	}
	for _, args := range [][]string{{"--workload", "none"}, {"--policy", "none", file}, {file, "--workload", "day"}, {file, file}} {
		if _, errs, status := simulate(t, args...); status == 0 || errs == "" {
			t.Errorf("%v: %d %s", args, status, errs)
		}
	}
	if err := os.WriteFile(file, []byte("version: 1\nbogus: 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := simulate(t, file); status != 1 || !strings.Contains(errs, "line 2: field bogus not found") {
		t.Errorf("%d: %s", status, errs)
	}
}
