package jobfile

import (
	"path"
	"slices"

	"gopkg.in/yaml.v3"
)

// parseCUDA reads the variant for CUDA: a file of PTX, and a recipe as for
// OpenCL, or that of the opencl variant (nil: there is none) where all there is
// is a file. One source in OpenCL C gives both (package kernels/build). Blocks of CUDA
// have a size that the caller chooses, so every pass has local sizes.
func parseCUDA(n *yaml.Node, opencl *OpenCL) (*OpenCL, error) {
	if err := mapping(n, "cuda", "{file: k.ptx}"); err != nil {
		return nil, err
	}
	cl, err := sharedRecipe(n, "cuda", "k.ptx", opencl)
	if err != nil {
		return nil, err
	}
	for _, pass := range cl.Run {
		if pass.Local == nil {
			return nil, Errorf(n.Line, "cuda needs \"local:\" in every entry of run, the size of a block; %s has none", pass.Entry)
		}
	}
	return cl, nil
}

// sharedRecipe reads the variant called name, whose file is like file: with a
// recipe of its own, or with that of the opencl variant (nil: there is none) where
// all there is is a file.
func sharedRecipe(n *yaml.Node, name, file string, opencl *OpenCL) (*OpenCL, error) {
	own := slices.ContainsFunc(n.Content, func(k *yaml.Node) bool { return k.Kind == yaml.ScalarNode && k.Value == "run" })
	if own || opencl == nil {
		return parseRecipe(n, name, file)
	}
	shared := *opencl
	shared.File = file
	err := fields(n, map[string]func(*yaml.Node) error{
		"file": func(n *yaml.Node) (err error) {
			shared.File, err = bundleFile(n, name+".file", path.Ext(file))
			return err
		},
	})
	return &shared, err
}
