package jobfile

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// parseCUDA reads the variant for CUDA: a file of PTX, and a recipe as for
// OpenCL, or that of the opencl variant (nil: there is none) where all there is
// is a file. One source in OpenCL C gives both (package ptxgen). Blocks of CUDA
// have a size that the caller chooses, so every pass has local sizes.
func parseCUDA(n *yaml.Node, opencl *OpenCL) (*OpenCL, error) {
	if err := mapping(n, "cuda", "{file: k.ptx}"); err != nil {
		return nil, err
	}
	cl := &OpenCL{File: "k.ptx"}
	own := slices.ContainsFunc(n.Content, func(k *yaml.Node) bool { return k.Kind == yaml.ScalarNode && k.Value == "run" })
	switch {
	case own || opencl == nil:
		var err error
		if cl, err = parseRecipe(n, "cuda", cl.File); err != nil {
			return nil, err
		}
	default:
		if err := fields(n, map[string]func(*yaml.Node) error{
			"file": func(n *yaml.Node) (err error) {
				cl.File, err = bundleFile(n, "cuda.file", ".ptx")
				return err
			},
		}); err != nil {
			return nil, err
		}
		shared := *opencl
		shared.File = cl.File
		cl = &shared
	}
	for _, pass := range cl.Run {
		if pass.Local == nil {
			return nil, Errorf(n.Line, "cuda needs \"local:\" in every entry of run, the size of a block; %s has none", pass.Entry)
		}
	}
	return cl, nil
}
