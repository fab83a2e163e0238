package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// helperCall is what mount(8) hands to mount.fuse.quern: SOURCE DIR [-sfnv]
// [-o OPTIONS] [-t TYPE].
type helperCall struct {
	source, dir string
	options     []string // for the mount
	remount     bool
	fake        bool
	pki         string
}

// parseHelper reads the command line of mount.fuse.quern. Options that only
// matter to mount(8) and to systemd are dropped. mount(8) does not pass on its
// defaults: what root mounts (root) has suid and dev unless an option says
// otherwise, as with mount.fuse3.
func parseHelper(args []string, root bool) (*helperCall, error) {
	var c helperCall
	var words []string
	var options string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" || a == "-t" || a == "-N":
			i++
			if i == len(args) {
				return nil, usagef("%s needs a value", a)
			}
			if a == "-o" {
				options += "," + args[i]
			}
		case strings.HasPrefix(a, "-o"):
			options += "," + a[2:]
		case strings.HasPrefix(a, "-") && len(a) > 1:
			c.fake = c.fake || strings.Contains(a, "f")
		default:
			words = append(words, a)
		}
	}
	if len(words) != 2 {
		return nil, usagef("use: mount -t fuse.quern SOURCE DIR, where SOURCE is a data directory or HOST:PORT,… of metadata servers")
	}
	c.source, c.dir = words[0], words[1]
	dropped := []string{
		"", "defaults", "auto", "noauto", "nouser", "noowner", "nogroup", "nofail", "_netdev", "_rnetdev", "default_permissions",
		// What the kernel shows of a mount; mount(8) says it again with remount.
		"user_id", "group_id", "rootmode", "max_read", "blksize",
	}
	var given []string
	for _, o := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case slices.Contains(dropped, key) || strings.HasPrefix(strings.ToLower(key), "x-") || strings.HasPrefix(key, "comment"):
		case key == "user" || key == "users":
			given = append(given, "nosuid", "nodev", "noexec")
		case key == "owner" || key == "group":
			given = append(given, "nosuid", "nodev")
		case key == "remount":
			c.remount = true
		case key == "pki":
			c.pki = value
		default:
			given = append(given, o)
		}
	}
	if root && !c.remount {
		c.options = []string{"suid", "dev"}
	}
	c.options = append(c.options, given...)
	return &c, nil
}

// mountArgs is the `quern mount` that does what the call asks for.
func (c *helperCall) mountArgs() []string {
	args := []string{"mount", c.dir, "--source", c.source}
	if strings.HasPrefix(c.source, "/") {
		args = append(args, "--data", c.source)
	} else {
		args = append(args, "--meta", c.source)
	}
	if c.pki != "" {
		args = append(args, "--pki", c.pki)
	}
	if len(c.options) > 0 {
		args = append(args, "-o", strings.Join(c.options, ","))
	}
	return args
}

func newMountHelper() *cobra.Command {
	return &cobra.Command{
		Use:    "mount-helper SOURCE DIR -o OPTIONS",
		Short:  "What mount(8) runs as mount.fuse.quern",
		Hidden: true,
		// mount(8) does not write its flags as others do.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := parseHelper(args, os.Geteuid() == 0)
			if err != nil || c.fake {
				return err
			}
			if c.remount {
				return remount(c.dir, c.options)
			}
			return mountInBackground(c.mountArgs())
		},
	}
}

// mountInBackground starts `quern mount` and returns once it is mounted.
// log goes to the system's log, if there is one.
func mountInBackground(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe, args...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), readyEnv+"=3")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	if err := waitReady(r, readyLimit); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("the mount does not start: %w", err)
	}
	return cmd.Process.Release()
}

// remount changes the flags that the kernel keeps of a mount. What no option
// names stays as it is. The process of the mount sees the change by itself.
func remount(dir string, options []string) error {
	at, err := mountedAt(dir)
	if err != nil {
		return err
	}
	if at.typ != "fuse.quern" {
		return fmt.Errorf("no filesystem of quern is mounted at %s", dir)
	}
	flags, err := remountFlags(at.options, options)
	if err != nil {
		return err
	}
	err = unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "")
	switch {
	case errors.Is(err, unix.EPERM):
		return errors.New("only root can remount")
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s is in use: a file is open for writing, so it cannot become read-only", dir)
	case err != nil:
		return fmt.Errorf("remount %s: %w", dir, err)
	}
	return nil
}

// kernelFlags are the options that the kernel keeps of a mount, as mountinfo
// shows them, and those that take them back.
var kernelFlags = []struct {
	on, off string
	flag    uintptr
}{
	{"ro", "rw", unix.MS_RDONLY},
	{"nosuid", "suid", unix.MS_NOSUID},
	{"nodev", "dev", unix.MS_NODEV},
	{"noexec", "exec", unix.MS_NOEXEC},
	{"noatime", "atime", unix.MS_NOATIME},
	{"nodiratime", "diratime", unix.MS_NODIRATIME},
	{"relatime", "", unix.MS_RELATIME},
}

// remountFlags applies options to the flags of a mount, which mountinfo says
// in shown.
func remountFlags(shown, options []string) (flags uintptr, err error) {
	for i, o := range slices.Concat(shown, options) {
		known := o == "allow_other" || o == "nonempty" || o == "async"
		for _, k := range kernelFlags {
			switch o {
			case k.on:
				flags |= k.flag
				known = true
			case k.off:
				flags &^= k.flag
				known = true
			}
		}
		switch o {
		case "noatime":
			flags &^= unix.MS_RELATIME
		case "atime", "relatime":
			flags &^= unix.MS_NOATIME
			flags |= unix.MS_RELATIME
		case "strictatime":
			return 0, errStrictAtime
		}
		if !known && i >= len(shown) {
			return 0, usagef("the option %s cannot be changed by remount: unmount, and mount again", o)
		}
	}
	return flags, nil
}

// Reads that the kernel answers from its cache are not seen by the process of
// the mount.
var errStrictAtime = usageError{errors.New("strictatime cannot be had: the kernel answers reads from its cache, and nobody learns of them; relatime and noatime can")}
