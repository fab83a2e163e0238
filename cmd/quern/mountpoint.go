package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// prepareMountPoint checks that dir can be mounted on, after it has detached
// what a mount whose process was killed left there. It returns the absolute
// path.
func prepareMountPoint(dir string, log func(string)) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for abandoned(dir) {
		log("the mount at " + dir + " is of a process that is gone: detached it")
		if err := detach(dir); err != nil {
			return "", fmt.Errorf("%s holds the mount of a process that is gone, and it cannot be detached: %w", dir, err)
		}
	}
	_, err = os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("the mount point %s does not exist: make it with `mkdir -p %s`", dir, dir)
	case err != nil:
		return "", fmt.Errorf("the mount point %s cannot be used: %w", dir, err)
	}
	mounted, err := mountedAt(dir)
	if err != nil {
		return "", err
	}
	if mounted.typ != "" {
		return "", fmt.Errorf("something (%s) is mounted at %s already: unmount it with `umount %s` or name another directory", mounted.typ, dir, dir)
	}
	entries, err := readSome(dir)
	if errors.Is(err, unix.ENOTDIR) {
		return "", fmt.Errorf("the mount point %s is not a directory", dir)
	}
	if err != nil {
		return "", fmt.Errorf("the mount point %s cannot be used: %w", dir, err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("the mount point %s is not empty (%s): a mount would hide what is in it, name an empty directory", dir, entries[0])
	}
	return dir, checkFuse()
}

// abandoned: the process that served a mount is gone. The kernel may still
// answer a stat from what it remembers, but never a statfs. A mount whose
// process is there, and busy, is not waited for.
func abandoned(dir string) bool {
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		done <- unix.Statfs(dir, &st)
	}()
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case err := <-done:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
	case <-timer.C:
		return false
	}
}

func readSome(dir string) ([]string, error) {
	fd, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	names, err := fd.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// checkFuse: the device is there, and who is not root has its helper.
func checkFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("/dev/fuse is missing: load the kernel's module with `modprobe fuse`, or give the container the device")
	case err != nil && os.Geteuid() == 0:
		return fmt.Errorf("/dev/fuse cannot be opened: %w; a container needs the device and CAP_SYS_ADMIN", err)
	case err == nil:
		f.Close()
	}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			return errors.New("mounting without being root needs fusermount3: install the package fuse3")
		}
	}
	return nil
}

// detach removes a mount whatever uses it.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	out, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// mounted is a mount as the kernel shows it; the zero value is none.
type mounted struct {
	typ     string
	options []string // of this mount, not of its filesystem
}

// mountedAt returns what is mounted at dir.
func mountedAt(dir string) (mounted, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mounted{}, err
	}
	defer f.Close()
	return findMount(f, dir)
}

// findMount reads lines of the form that proc(5) gives for mountinfo: the
// fifth field is the mount point, the sixth the options, the one after "-" the
// type. Of several mounts at one place the last lies on top.
func findMount(r io.Reader, dir string) (mounted, error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found mounted
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || unescape.Replace(fields[4]) != dir {
			continue
		}
		for i, f := range fields[6:] {
			if f == "-" && 6+i+1 < len(fields) {
				found = mounted{fields[6+i+1], strings.Split(fields[5], ",")}
			}
		}
	}
	return found, lines.Err()
}
