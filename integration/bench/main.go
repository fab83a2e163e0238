// Command bench measures a filesystem beside others, in one run and on one
// machine: the local filesystem, go-fuse's loopback, and quern up in one
// process. It prints a Markdown table; docs/performance.md says how to read it.
//
//	go run ./integration/bench -dir /var/tmp
//
//	main.go      flags, and the order of things
//	system.go    what is measured: how each is started, made cold, ended
//	workload.go  the work: one function for each block of rows
//	report.go    the table
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	dir       string // where everything is put; removed at the end
	quern     string // binary
	args      string // of quern up
	systems   string
	work      string
	seqMiB    int
	randMiB   int
	seconds   int
	files     int
	treeFiles int
	out       string
	rounds    int
}

func main() {
	log.SetFlags(log.Ltime)
	var o options
	flag.StringVar(&o.dir, "dir", os.TempDir(), "directory on the local filesystem to work in")
	flag.StringVar(&o.quern, "quern", "", "quern binary (default: built from this module)")
	flag.StringVar(&o.args, "up", "--policy 4+2 --chunk-servers 6", "arguments of quern up")
	flag.StringVar(&o.systems, "systems", "local,loopback,plain,quern", "what to measure: local, loopback (go-fuse's, the kernel reads and writes by itself), plain (loopback without that), quern")
	flag.StringVar(&o.work, "work", "seq,rand,small,tree", "which work: seq, rand, small, tree")
	flag.IntVar(&o.seqMiB, "seq", 1024, "MiB of the file that is read and written in sequence")
	flag.IntVar(&o.randMiB, "rand", 256, "MiB of the file that is read and written at random")
	flag.IntVar(&o.seconds, "seconds", 5, "seconds of each random workload")
	flag.IntVar(&o.files, "files", 5000, "small files")
	flag.IntVar(&o.treeFiles, "tree", 2970, "files of the Go source in the tar file")
	flag.StringVar(&o.out, "out", "", "also write the table to this file")
	flag.IntVar(&o.rounds, "rounds", 1, "repeat all, and report the best of each row")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	dir, err := os.MkdirTemp(o.dir, "quern-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(&o, dir); err != nil {
		return err
	}
	tar, err := makeTar(filepath.Join(dir, "tree.tar"), o.treeFiles)
	if err != nil {
		return fmt.Errorf("the tar file of the Go source: %w", err)
	}
	rep := newReport()
	names := strings.Split(o.systems, ",")
	for round := range o.rounds {
		for _, name := range names {
			log.Printf("round %d: %s", round+1, name)
			if err := measure(o, name, filepath.Join(dir, fmt.Sprintf("%s-%d", name, round)), tar, rep); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	table := rep.table(names)
	fmt.Print(table)
	if o.out != "" {
		return os.WriteFile(o.out, []byte(table), 0o644)
	}
	return nil
}

// build makes the binaries that are measured.
func build(o *options, dir string) error {
	for name, pkg := range map[string]string{"quern": "quernfs/cmd/quern", "loopback": "quernfs/integration/bench/loopback"} {
		if name == "quern" && o.quern != "" {
			continue
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w: %s", pkg, err, out)
		}
	}
	if o.quern == "" {
		o.quern = filepath.Join(dir, "quern")
	}
	return nil
}

// measure does all the work on one system.
func measure(o options, name, dir, tar string, rep *report) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newSystem(o, name, dir)
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	work := strings.Split(o.work, ",")
	m := &meter{sys: s, rep: rep, name: name}
	for _, w := range []struct {
		name string
		do   func() error
	}{
		{"seq", func() error { return sequential(m, o.seqMiB) }},
		{"rand", func() error { return random(m, o.randMiB, time.Duration(o.seconds)*time.Second) }},
		{"small", func() error { return small(m, o.files) }},
		{"tree", func() error { return tree(m, tar) }},
	} {
		if !slices.Contains(work, w.name) {
			continue
		}
		log.Printf("  %s", w.name)
		if err := w.do(); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	s.sampleMemory()
	rep.lowest(name, "peak memory of the server, MiB", s.peakMiB)
	return nil
}
