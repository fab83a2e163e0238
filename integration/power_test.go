package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerCut cuts the power in the middle of writes: all state lies on a loop
// disk with direct I/O whose backing file is cloned in one instant, so the
// clone has exactly what had reached the disk.
func TestPowerCut(t *testing.T) {
	rounds := 2
	if long {
		rounds = 8
	}
	needMount(t)
	disk := newDisk(t, workDir(t), 6<<10)
	var journals []*journal
	image := disk.first
	for round := range rounds {
		state := disk.mount(image)
		c := clusterIn(t, state)
		// The mount point and the sockets are no part of the disk.
		c.mnt = filepath.Join(disk.dir, fmt.Sprintf("q-%d", round))
		if err := os.MkdirAll(c.mnt, 0o755); err != nil {
			t.Fatal(err)
		}
		c.start()
		for i, j := range journals {
			j.check(t, filepath.Join(c.mnt, fmt.Sprintf("round-%d", i)))
		}
		c.checkTree()
		dir := filepath.Join(c.mnt, fmt.Sprintf("round-%d", round))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		j := startJournal(dir, 4)
		j.waitFor(t, 40, 60*time.Second)
		j.mu.Lock() // what is acknowledged from here on may be missing in the image
		image = disk.cut(fmt.Sprintf("cut-%d", round))
		kept := &journal{dir: j.dir, entries: append([]entry(nil), j.entries...)}
		j.mu.Unlock()
		c.killAll()
		j.stop()
		for isMounted(c.mnt) && unix.Unmount(c.mnt, unix.MNT_DETACH) == nil {
		}
		disk.unmount(state)
		journals = append(journals, kept)
	}
	state := disk.mount(image)
	c := clusterIn(t, state)
	c.mnt = filepath.Join(disk.dir, "q-last")
	if err := os.MkdirAll(c.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	c.start()
	for i, j := range journals {
		j.check(t, filepath.Join(c.mnt, fmt.Sprintf("round-%d", i)))
	}
	c.checkTree()
	c.stop()
	disk.unmount(state)
}

// disk is a disk whose power can be cut: a file on a filesystem with reflinks,
// which a loop device shows as a disk.
type disk struct {
	t     *testing.T
	dir   string
	host  string // the filesystem that can reflink
	first string // the image of the empty disk
	loops map[string]string
}

// newDisk makes a disk of the given size (MiB) with an ext4 on it.
func newDisk(t *testing.T, dir string, mib int) *disk {
	t.Helper()
	needTool(t, "mkfs.xfs", "mkfs.ext4", "losetup", "mount")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	d := &disk{t: t, dir: dir, host: filepath.Join(dir, "host"), loops: map[string]string{}}
	hostImage := filepath.Join(dir, "host.img")
	d.must("truncate", "-s", fmt.Sprintf("%dM", 3*mib), hostImage)
	d.must("mkfs.xfs", "-q", "-f", "-m", "reflink=1", hostImage)
	if err := os.MkdirAll(d.host, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", hostImage, d.host).CombinedOutput(); err != nil {
		t.Skipf("needs to mount an XFS from a loop device: %v: %s", err, out)
	}
	t.Cleanup(d.remove)
	d.first = filepath.Join(d.host, "disk.img")
	d.must("truncate", "-s", fmt.Sprintf("%dM", mib), d.first)
	d.must("mkfs.ext4", "-q", "-F", d.first)
	return d
}

func (d *disk) must(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// mount shows an image as a disk with direct I/O: there is no second page cache
// in which what was not flushed could survive. The journal is replayed, as it
// is after a power cut.
func (d *disk) mount(image string) string {
	d.t.Helper()
	loop := d.must("losetup", "--direct-io=on", "--sector-size", "512", "--show", "-f", image)
	dir := strings.TrimSuffix(filepath.Join(d.dir, filepath.Base(image)), ".img")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	d.loops[dir] = loop
	d.must("mount", loop, dir)
	return dir
}

// cut returns the image of the disk as it is at this instant.
func (d *disk) cut(name string) string {
	d.t.Helper()
	var newest string
	for dir := range d.loops {
		newest = filepath.Join(d.host, filepath.Base(dir)+".img")
	}
	image := filepath.Join(d.host, name+".img")
	d.must("cp", "--reflink=always", newest, image)
	return image
}

func (d *disk) unmount(dir string) {
	d.t.Helper()
	loop, ok := d.loops[dir]
	if !ok {
		return
	}
	delete(d.loops, dir)
	d.must("umount", dir)
	d.must("losetup", "-d", loop)
	os.Remove(filepath.Join(d.host, filepath.Base(dir)+".img"))
}

func (d *disk) remove() {
	for dir, loop := range d.loops {
		exec.Command("umount", "-l", dir).Run()
		exec.Command("losetup", "-d", loop).Run()
	}
	exec.Command("umount", "-l", d.host).Run()
}
