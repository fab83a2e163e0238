package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// system is one filesystem under test.
type system struct {
	name    string
	root    string // where the work is done
	command []string
	cmd     *exec.Cmd // its server; nil for the local filesystem
	logFile string

	cpuBefore time.Duration // of servers that have ended
	peakMiB   float64
}

func newSystem(o options, name, dir string) (*system, error) {
	mnt, back := filepath.Join(dir, "mnt"), filepath.Join(dir, "data")
	for _, d := range []string{mnt, back} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	s := &system{name: name, root: mnt, logFile: filepath.Join(dir, "server.log")}
	switch name {
	case "local":
		s.root = back
	case "loopback":
		s.command = []string{filepath.Join(filepath.Dir(dir), "loopback"), mnt, back}
	case "plain":
		s.command = []string{filepath.Join(filepath.Dir(dir), "loopback"), "-passthrough=false", mnt, back}
	case "quern":
		s.command = append([]string{o.quern, "up", "--data", back, "--mount", mnt}, strings.Fields(o.args)...)
	default:
		return nil, fmt.Errorf("no such system: local, loopback, plain, quern are known")
	}
	return s, nil
}

// start mounts it.
func (s *system) start() error {
	if s.command == nil {
		return nil
	}
	s.cmd = exec.Command(s.command[0], s.command[1:]...)
	log, err := os.OpenFile(s.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "is mounted") {
			return nil
		}
	}
	s.cmd.Wait()
	text, _ := os.ReadFile(s.logFile)
	return fmt.Errorf("it does not start: %s", text)
}

// stop unmounts it.
func (s *system) stop() error {
	if s.cmd == nil {
		return nil
	}
	s.sampleMemory()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := s.cmd.Wait()
	s.cpuBefore += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
	s.cmd = nil
	if err != nil {
		return fmt.Errorf("its server: %w", err)
	}
	return nil
}

// cold empties every cache: the server starts anew, and the kernel forgets what
// it has of the files below.
func (s *system) cold() error {
	if err := s.stop(); err != nil {
		return err
	}
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("the page cache cannot be emptied: %w", err)
	}
	return s.start()
}

// cpu is what the server has used so far, all its lives together.
func (s *system) cpu() time.Duration {
	total := s.cpuBefore
	if s.cmd != nil {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		if err == nil {
			f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			total += time.Duration(user+system) * time.Second / 100 // USER_HZ is 100 everywhere
		}
	}
	return total
}

// sampleMemory notes the peak of the server's resident memory.
func (s *system) sampleMemory() {
	if s.cmd == nil {
		return
	}
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for _, line := range strings.Split(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			s.peakMiB = max(s.peakMiB, kib/1024)
		}
	}
}
