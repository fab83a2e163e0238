package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestTrainNearData replays examples/train-near-data: a network is trained where
// the data lies, its model is registered, and looks at what it has not seen.
func TestTrainNearData(t *testing.T) {
	needTool(t, "bwrap")
	python := "PATH=/usr/bin:/bin:" + os.Getenv("PATH") // the system's, as the job's
	probe := exec.Command("bash", "-c", "python3 -c 'import torch, sklearn'")
	probe.Env = append(os.Environ(), python)
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("no torch and scikit-learn on this host (Debian: python3-torch, python3-sklearn): %s", tail(string(out)))
	}
	needONNX(t)
	c := startCluster(t, "--exec-allow", "python3")
	dir, err := filepath.Abs("../examples/train-near-data")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range docBlocks(readFile(t, filepath.Join(dir, "README.md"))) {
		t.Log(shell(t, dir, b.text, "MNT="+c.mnt, python))
	}
	job := filepath.Join(c.mnt, ".compute", "by-name", "classify")
	labels := readFile(t, filepath.Join(c.mnt, "digits", "test.y"))
	lines := strings.Split(strings.TrimSpace(readFile(t, filepath.Join(job, "out", "output"))), "\n")
	if len(lines) != len(labels) {
		t.Fatalf("%d answers for %d pictures", len(lines), len(labels))
	}
	right := 0
	for i, l := range lines {
		f := strings.Fields(l)
		if len(f) != 3 || f[0] != strconv.Itoa(i) {
			t.Fatalf("answer %d is %q", i, l)
		}
		if f[1] == strconv.Itoa(int(labels[i])) {
			right++
		}
	}
	t.Logf("%d of %d right", right, len(lines))
	// The rule kept what the model calls a seven, of each picture alone as of all.
	kept := 0
	for i := range 40 {
		label := readFile(t, filepath.Join(c.mnt, "seen", fmt.Sprint(i, ".label")))
		said, of := strings.Fields(label), strings.Fields(lines[i])
		if len(said) != 3 || said[0] != "0" || said[1] != of[1] {
			t.Errorf("picture %d: the rule's job says %q, the other %q", i, label, lines[i])
			continue
		}
		_, err := os.Stat(filepath.Join(c.mnt, "edge", fmt.Sprint(i, ".x")))
		if stays := err == nil; stays != (said[1] == "7") {
			t.Errorf("picture %d, which shows a %s: %v", i, said[1], err)
		} else if stays {
			kept++
		}
	}
	if kept == 0 || kept > 20 {
		t.Errorf("%d of 40 pictures were kept", kept)
	}
	if right < len(lines)*9/10 {
		t.Errorf("%d of %d pictures were recognised", right, len(lines))
	}
}
