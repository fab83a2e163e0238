package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostileProgram: where cat alone is allowed, a job runs the host's cat or nothing,
// whatever it brings along, binds, or puts into the environment.
func TestHostileProgram(t *testing.T) {
	h := open(t)
	evil := "#!/bin/sh\necho EVIL\n"
	for name, c := range map[string]struct {
		allow []string
		argv  []string
		env   []string
		binds []Bind // From is below what the job brings along
		want  string // of the output, or of the error
	}{
		"as it is":                     {[]string{"cat"}, []string{"cat"}, nil, nil, "input"},
		"its own of that name":         {[]string{"cat"}, []string{"cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "input"},
		"PATH":                         {[]string{"cat"}, []string{"cat"}, []string{"PATH=/in/bin"}, []Bind{{From: "bin", To: "/in/bin"}}, "its environment has PATH"},
		"PATH behind the host's":       {[]string{"cat"}, []string{"cat"}, []string{"PATH=/usr/bin:/in/bin"}, []Bind{{From: "bin", To: "/in/bin"}}, "its environment has PATH"},
		"PATH by way of ..":            {[]string{"cat"}, []string{"cat"}, []string{"PATH=/usr/../in/bin"}, []Bind{{From: "bin", To: "/in/bin"}}, "its environment has PATH"},
		"relative PATH":                {[]string{"cat"}, []string{"cat"}, []string{"PATH=."}, nil, "its environment has PATH"},
		"empty PATH":                   {[]string{"cat"}, []string{"cat"}, []string{"PATH="}, nil, "its environment has PATH"},
		"PATH in /proc":                {[]string{"cat"}, []string{"cat"}, []string{"PATH=/proc/self/cwd"}, nil, "its environment has PATH"},
		"PATH of the host":             {[]string{"cat"}, []string{"cat"}, []string{"PATH=/bin"}, nil, "input"},
		"over /usr/bin":                {[]string{"cat"}, []string{"cat"}, nil, []Bind{{From: "bin", To: "/usr/bin"}}, "cannot be shown at /usr/bin"},
		"over /usr/bin, by way of ..":  {[]string{"cat"}, []string{"cat"}, nil, []Bind{{From: "bin", To: "/in/../usr/bin"}}, "cannot be shown at"},
		"over the file":                {[]string{"cat"}, []string{"cat"}, nil, []Bind{{From: "bin/cat", To: "/usr/bin/cat"}}, "cannot be shown at"},
		"over the libraries":           {[]string{"cat"}, []string{"cat"}, nil, []Bind{{From: "bin", To: "/lib"}}, "cannot be shown at"},
		"LD_PRELOAD":                   {[]string{"cat"}, []string{"cat"}, []string{"LD_PRELOAD=/in/bin/x.so"}, []Bind{{From: "bin", To: "/in/bin"}}, "its environment has LD_PRELOAD"},
		"LD_LIBRARY_PATH":              {[]string{"cat"}, []string{"cat"}, []string{"LD_LIBRARY_PATH=/in/bin"}, nil, "its environment has LD_LIBRARY_PATH"},
		"LD_AUDIT":                     {[]string{"cat"}, []string{"cat"}, []string{"LD_AUDIT=/in/bin/x.so"}, nil, "its environment has LD_AUDIT"},
		"tunables":                     {[]string{"cat"}, []string{"cat"}, []string{"GLIBC_TUNABLES=x"}, nil, "its environment has GLIBC_TUNABLES"},
		"conversions":                  {[]string{"cat"}, []string{"cat"}, []string{"GCONV_PATH=/in"}, nil, "its environment has GCONV_PATH"},
		"a module for another":         {[]string{"cat"}, []string{"cat"}, []string{"PYTHONPATH=/in"}, nil, "its environment has PYTHONPATH"},
		"relative":                     {[]string{"cat"}, []string{"./cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "has not allowed it"},
		"relative, allowed so":         {[]string{"bin/*"}, []string{"bin/cat"}, nil, nil, "has not allowed it"},
		"by its path":                  {[]string{"cat"}, []string{"/in/bin/cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "has not allowed it"},
		"a link to a shell":            {[]string{"cat"}, []string{"/in/bin/link"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "has not allowed it"},
		"a script":                     {[]string{"cat", "sh"}, []string{"/in/bin/cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "has not allowed it"},
		"out of an allowed directory":  {[]string{"/usr/bin/*"}, []string{"/usr/bin/../../in/bin/cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "has not allowed it"},
		"an allowed directory":         {[]string{"/usr/bin/*"}, []string{"/usr/bin/cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "input"},
		"what the list says is theirs": {[]string{"/in/bin/*"}, []string{"/in/bin/cat"}, nil, []Bind{{From: "bin", To: "/in/bin"}}, "EVIL"},
		"not there":                    {[]string{"no-such-*"}, []string{"no-such-program"}, nil, nil, "no such file or directory"},
		"all is allowed":               {[]string{"*"}, []string{"cat"}, []string{"PATH=/in/bin"}, []Bind{{From: "bin", To: "/in/bin"}}, "EVIL"},
	} {
		t.Run(name, func(t *testing.T) {
			r, out := shell(t, h, "")
			bin := filepath.Join(r.Dir.In(), "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{r.Dir.In(), bin} {
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(bin, "cat"), []byte(evil), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/bin/sh", filepath.Join(bin, "link")); err != nil {
				t.Fatal(err)
			}
			for _, b := range c.binds {
				r.Binds = append(r.Binds, Bind{From: filepath.Join(r.Dir.In(), b.From), To: b.To})
			}
			r.Allow, r.Argv, r.Env, r.Stdin = c.allow, c.argv, c.env, strings.NewReader("input")
			exit, err := h.Run(t.Context(), r)
			got := strings.TrimSpace(out.String())
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) || err == nil && exit.Code != 0 {
				t.Errorf("%q, %+v, want %q", got, exit, c.want)
			}
		})
	}
}

// TestProgramOfHost: a link of the host leads only to what programs see.
func TestProgramOfHost(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"seen", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "tool"), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"near": "tool", "far": "../other/tool"} {
		if err := os.Symlink(to, filepath.Join(dir, "seen", name)); err != nil {
			t.Fatal(err)
		}
	}
	seen := filepath.Join(dir, "seen")
	h := &Host{cfg: Config{System: []string{seen}}}
	for name, want := range map[string]string{"tool": filepath.Join(seen, "tool"), "near": filepath.Join(seen, "tool"), "far": ""} {
		file, err := h.program(&Run{Allow: []string{seen + "/*"}, Argv: []string{filepath.Join(seen, name)}})
		var start *StartError
		if file != want || (err != nil) != (want == "") || err != nil && !errors.As(err, &start) {
			t.Errorf("%s: %q, %v", name, file, err)
		}
	}
}
