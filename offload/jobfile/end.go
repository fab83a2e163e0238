package jobfile

import (
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

// endFields are those of what comes after a task, and after a job.
func endFields(s *Spec) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"combine": func(n *yaml.Node) error {
			if n.Kind != yaml.MappingNode {
				return Errorf(n.Line, "combine must be a mapping such as {kernel: wordcount}, not %s", describe(n))
			}
			s.Combine = &Step{KernelLine: n.Line}
			known := stepFields(s.Combine, "combine.")
			known["exec"] = func(n *yaml.Node) error {
				return Errorf(n.Line, "combine runs a kernel or a module, not a program: give combine.kernel or combine.wasm")
			}
			if err := fields(n, known); err != nil {
				return err
			}
			return s.Combine.check("combine ")
		},
		"notify": func(n *yaml.Node) (err error) {
			if s.Notify, err = text(n, "notify"); err != nil {
				return err
			}
			s.NotifyLine = n.Line
			clean, err := absolute(n.Line, "notify", s.Notify)
			if err != nil {
				return err
			}
			if clean == "/" || strings.HasSuffix(s.Notify, "/") {
				return Errorf(n.Line, "notify must end in a file name, such as %s", path.Join(clean, "ends.json"))
			}
			if clean == "/.compute" || strings.HasPrefix(clean, "/.compute/") {
				return Errorf(n.Line, "notify must be a file of your own, not one below /.compute")
			}
			s.Notify = clean
			return fileName(n.Line, "notify", path.Base(clean))
		},
		"log_limit": func(n *yaml.Node) (err error) {
			s.LogLimit, err = sizeBetween(n, "log_limit", MinLogLimit, MaxLogLimit, "16KiB to 1GiB such as 100MiB")
			return err
		},
		"output_limit": func(n *yaml.Node) (err error) {
			s.OutputLimit, err = sizeBetween(n, "output_limit", MinOutputLimit, MaxOutputLimit, "1KiB to 1TiB such as 10GiB")
			return err
		},
	}
}

// checkCombine is what can be said once all fields are read.
func (s *Spec) checkCombine() error {
	switch c := s.Combine; {
	case c == nil:
	case s.Reduce == nil:
		return Errorf(c.KernelLine, "combine comes before a reduce step, and there is none: give \"reduce: {}\"")
	case c.Kernel == "" && c.Wasm == "" && s.Map.Exec != nil:
		return Errorf(c.KernelLine, "combine names no kernel, and that of the map is a program: give combine.kernel or combine.wasm")
	}
	return nil
}
