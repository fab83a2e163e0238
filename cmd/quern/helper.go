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
// matter to mount(8) and to systemd are dropped.
func parseHelper(args []string) (*helperCall, error) {
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
	dropped := []string{"", "defaults", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "rw", "default_permissions"}
	for _, o := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case slices.Contains(dropped, key) || strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "comment"):
		case key == "remount":
			c.remount = true
		case key == "pki":
			c.pki = value
		default:
			c.options = append(c.options, o)
		}
	}
	return &c, nil
}

// mountArgs is the `quern mount` that does what the call asks for.
func (c *helperCall) mountArgs() []string {
	args := []string{"mount", c.dir}
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
			c, err := parseHelper(args)
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

// remount changes the flags that the kernel keeps of a mount.
func remount(dir string, options []string) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV)
	for _, o := range options {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "noatime":
			flags |= unix.MS_NOATIME
		case "nodiratime":
			flags |= unix.MS_NODIRATIME
		case "relatime":
			flags |= unix.MS_RELATIME
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		case "dirsync":
			flags |= unix.MS_DIRSYNC
		case "suid":
			flags &^= unix.MS_NOSUID
		case "dev":
			flags &^= unix.MS_NODEV
		}
	}
	err := unix.Mount("", dir, "", flags, "")
	if errors.Is(err, unix.EPERM) {
		return errors.New("only root can remount")
	}
	if err != nil {
		return fmt.Errorf("remount %s: %w", dir, err)
	}
	return nil
}
