package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Descriptors of bwrap beyond those of Main.
const (
	infoFD = iota + saidFD + 1
	goFD
	mapsFD
	filterFD
	argsFD
)

// programPath is what programs named without a slash are looked for in.
const programPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

// helper is where our own program lies in a sandbox.
const helper = "/.quern/worker"

// etcFiles are what programs need of /etc; none of them is a secret.
var etcFiles = []string{
	"alternatives", "ca-certificates", "fonts", "group", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"locale.alias", "localtime", "machine-id", "mime.types", "nsswitch.conf", "OpenCL", "passwd", "pki",
	"protocols", "python3", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
}

// arguments are those of bwrap, for --args.
func (h *Host) arguments(r *Run) []string {
	args := []string{
		"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
		"--hostname", "task", "--die-with-parent", "--new-session", "--clearenv",
		"--info-fd", strconv.Itoa(infoFD), "--block-fd", strconv.Itoa(goFD),
	}
	add := func(a ...string) { args = append(args, a...) }
	if !r.Network {
		add("--unshare-net")
	}
	add("--cap-drop", "ALL")
	if h.root {
		// We map all ids, the helper becomes the job's owner.
		add("--userns-block-fd", strconv.Itoa(mapsFD), "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP")
	}
	if h.filter != nil {
		add("--seccomp", strconv.Itoa(filterFD))
	}
	for _, e := range h.cfg.InitEnv {
		k, v, _ := strings.Cut(e, "=")
		add("--setenv", k, v)
	}
	binds := sorted(r.Binds)
	points := []string{helper, "/etc/passwd"}
	points = append(points, h.cfg.System...)
	for _, b := range binds {
		points = append(points, b.To)
	}
	// Those that bwrap makes itself can be entered by root only.
	for _, d := range parents(points) {
		if !strings.HasPrefix(d+"/", "/usr/") {
			add("--dir", d)
		}
	}
	args = append(args, h.system...)
	if r.Network {
		add("--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf")
	}
	for _, p := range h.cfg.System {
		add("--ro-bind-try", p, p)
	}
	add("--proc", "/proc", "--dev", "/dev")
	if h.limits.Memory == ByCgroup2 || h.limits.Memory == ByCgroup1 {
		add("--perms", "1777", "--size", strconv.FormatInt(r.Limits.Memory, 10), "--tmpfs", "/dev/shm")
	} // else memory there would not be limited: it stays read-only
	for _, d := range r.Devices {
		add("--dev-bind", d, d)
	}
	add("--dir", "/in")
	for _, b := range binds {
		add("--ro-bind", b.From, b.To)
	}
	add("--bind", r.Dir.Scratch(), "/scratch", "--bind", r.Dir.Out(), "/out", "--symlink", "scratch", "/tmp")
	add("--ro-bind", h.cfg.Init[0], helper)
	add("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/")
	return args
}

// sorted puts a bind mount below another after it.
func sorted(binds []Bind) []Bind {
	binds = slices.Clone(binds)
	slices.SortFunc(binds, func(a, b Bind) int { return strings.Compare(a.To, b.To) })
	return binds
}

// parents are the directories above paths, each once and after its own parent.
func parents(paths []string) (dirs []string) {
	seen := map[string]bool{"/": true}
	for _, p := range paths {
		for d := filepath.Dir(p); !seen[d]; d = filepath.Dir(d) {
			seen[d] = true
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// systemArguments are the read-only parts of the host that every sandbox has.
func systemArguments() []string {
	args := []string{"--ro-bind", "/usr", "/usr"}
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		switch fi, err := os.Lstat(dir); {
		case err != nil:
		case fi.Mode()&os.ModeSymlink != 0:
			if target, err := os.Readlink(dir); err == nil {
				args = append(args, "--symlink", target, dir)
			}
		default:
			args = append(args, "--ro-bind", dir, dir)
		}
	}
	for _, name := range etcFiles {
		args = append(args, "--ro-bind-try", filepath.Join("/etc", name), filepath.Join("/etc", name))
	}
	return args
}

// environment is what a program gets; the job's own goes before.
func environment(own []string) []string {
	env := slices.Clone(own)
	for _, kv := range []string{"PATH=" + programPath, "HOME=/scratch", "TMPDIR=/tmp", "LANG=C.UTF-8"} {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

// packArguments makes the content of --args.
func packArguments(args []string) ([]byte, error) {
	var out []byte
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("%q contains a byte 0", a)
		}
		out = append(append(out, a...), 0)
	}
	return out, nil
}
