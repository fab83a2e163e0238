package jobfile

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// Kernel is a kernel's manifest, kernel.yaml:
//
//	version: 1
//	about: one line for people
//	wasm: k.wasm                 # default; a file beside the manifest
//	args: [count]                # put before the job's own
type Kernel struct {
	About string
	Wasm  string
	Args  []string
}

// ParseKernel reads and checks a manifest. Its error is an *Error.
func ParseKernel(data []byte) (*Kernel, error) {
	root, err := document(data, "a kernel's manifest")
	if err != nil {
		return nil, err
	}
	k := &Kernel{Wasm: "k.wasm"}
	version := false
	err = fields(root, map[string]func(*yaml.Node) error{
		"version": func(n *yaml.Node) error {
			version = true
			return versionOne(n)
		},
		"about": func(n *yaml.Node) (err error) {
			k.About, err = text(n, "about")
			return err
		},
		"wasm": func(n *yaml.Node) (err error) {
			if k.Wasm, err = text(n, "wasm"); err != nil {
				return err
			}
			if !strings.HasSuffix(k.Wasm, ".wasm") {
				return Errorf(n.Line, "wasm must name a file that ends in .wasm, not %q", shorten(k.Wasm))
			}
			return fileName(n.Line, "wasm", k.Wasm)
		},
		"args": func(n *yaml.Node) error {
			list, err := texts(n, "args", MaxArgs)
			for _, c := range list {
				k.Args = append(k.Args, c.Value)
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if !version {
		return nil, Errorf(root.Line, "a kernel's manifest begins with \"version: 1\"")
	}
	return k, nil
}

func versionOne(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Value != "1" {
		return Errorf(n.Line, "version must be 1, not %s", describe(n))
	}
	return nil
}
