package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Where an allow-list names programs it means those of the host. So the program is
// looked for in the host's own directories, before there is a sandbox: neither the
// job's PATH nor what it has bound is asked. And what decides what else is loaded into
// it, or run by its name, is not the job's to say.

// theirs are the directories of a sandbox that the job fills.
var theirs = []string{"/in", "/out", "/scratch", "/tmp", "/dev", "/proc"}

// loads are variables by which a program of the name is told to load code; a prefix
// ends in *. A program that runs what it is told anyway may be told so.
var loads = []struct {
	program string // a prefix of its name; "": of every program
	names   []string
}{
	{"", []string{"LD_*", "GLIBC_*", "GCONV_PATH", "GETCONF_DIR", "LOCPATH", "NLSPATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES", "GIO_EXTRA_MODULES", "CUDA_INJECTION*", "OCL_ICD_*", "OPENCL_VENDOR_PATH"}},
	{"sh", []string{"ENV"}},
	{"bash", []string{"BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "ENV"}},
	{"python", []string{"PYTHON*"}},
	{"perl", []string{"PERL*"}},
	{"ruby", []string{"RUBY*"}},
	{"node", []string{"NODE_*"}},
	{"java", []string{"JAVA_*", "_JAVA_*", "JDK_*", "CLASSPATH"}},
	{"R", []string{"R_*"}},
	{"lua", []string{"LUA_*"}},
}

// Widens names the first variable of an environment (NAME=VALUE) by which a listed
// program would run what is not listed; "" if there is none.
func Widens(program string, env []string) string {
	base := path.Base(program)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if name == "PATH" && !hostPath(value) {
			return name
		}
		for _, l := range loads {
			if l.program != "" && strings.HasPrefix(base, l.program) {
				continue
			}
			for _, n := range l.names {
				if prefix, ok := strings.CutSuffix(n, "*"); name == n || ok && strings.HasPrefix(name, prefix) {
					return name
				}
			}
		}
	}
	return ""
}

// hostPath says whether programs found by a PATH are the host's.
func hostPath(value string) bool {
	for dir := range strings.SplitSeq(value, ":") {
		if !path.IsAbs(dir) || path.Clean(dir) != dir || within(dir, theirs) {
			return false
		}
	}
	return true
}

// within says whether a clean path is one of dirs or below one.
func within(p string, dirs []string) bool {
	return p == "/" || slices.ContainsFunc(dirs, func(d string) bool { return p == d || strings.HasPrefix(p, d+"/") })
}

// program is the file that a listed program is, as the sandbox shows it; "" if the list
// allows everything: then the sandbox looks for it.
func (h *Host) program(r *Run) (string, error) {
	if r.Allow == nil || slices.Contains(r.Allow, "*") {
		return "", nil
	}
	name := r.Argv[0]
	refuse := func(why string) (string, error) { return "", &StartError{name, why} }
	if !Allowed(r.Allow, name) {
		return refuse("the administrator of this host has not allowed it")
	}
	if v := Widens(name, r.Env); v != "" {
		return refuse("its environment has " + v + ", by which it would run what is not allowed")
	}
	files := []string{name}
	if !strings.Contains(name, "/") {
		files = nil
		for dir := range strings.SplitSeq(programPath, ":") {
			files = append(files, path.Join(dir, name))
		}
	} else if within(name, theirs) && !within(name, h.cfg.System) {
		return name, nil // the list itself names what jobs bring along
	}
	why := "no such file or directory"
	for _, file := range files {
		real, err := filepath.EvalSymlinks(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return refuse(err.Error())
		}
		fi, err := os.Stat(real)
		switch {
		case err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0:
			why = "permission denied"
		case !within(real, append([]string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}, h.cfg.System...)):
			why = "it is " + real + ", which programs here do not see (--exec-system)"
		default:
			return real, nil
		}
	}
	return refuse(why)
}
