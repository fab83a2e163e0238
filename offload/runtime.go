package offload

import (
	"slices"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// runtimesOf are those that a kernel has a variant for.
func runtimesOf(ref *wire.KernelRef) []string {
	if len(ref.GetRuntimes()) == 0 && len(ref.GetUnsigned()) == 0 {
		return []string{jobfile.RuntimeWasm}
	}
	return ref.Runtimes
}

// candidates are the runtimes with which a step may run, the preferred first:
// those of prefer, the job file's list, that the kernel has a variant for;
// without a list its wasm variant and those that an agent can compare with it, else
// what it has. A reduce step, which reads what others wrote, is always wasm.
func candidates(prefer []string, ref *wire.KernelRef, reduce bool) []string {
	have := runtimesOf(ref)
	switch {
	case reduce:
		prefer = []string{jobfile.RuntimeWasm}
	case len(prefer) == 0 && slices.Contains(have, jobfile.RuntimeWasm):
		if len(have) == 1 || !tested(ref) {
			return []string{jobfile.RuntimeWasm}
		}
		rest := slices.DeleteFunc(slices.Clone(have), func(r string) bool { return r == jobfile.RuntimeWasm })
		return append([]string{jobfile.RuntimeWasm}, rest...)
	case len(prefer) == 0:
		return have
	}
	var out []string
	for _, r := range prefer {
		if slices.Contains(have, r) {
			out = append(out, r)
		}
	}
	return out
}

// tested says whether an agent compares a variant of a kernel with its reference
// before it uses it.
func tested(ref *wire.KernelRef) bool {
	if bundled(ref) {
		return true
	}
	k, err := jobfile.ParseKernel(ref.Manifest)
	return err == nil && k.Test != nil
}

// variantDigest is the digest of the file that a kernel has for a runtime; nil:
// there is none, or it is the wasm variant.
func variantDigest(ref *wire.KernelRef, runtime string) []byte {
	if runtime == jobfile.RuntimeWasm || len(ref.GetManifest()) == 0 {
		return nil
	}
	k, err := jobfile.ParseKernel(ref.Manifest)
	if err != nil {
		return nil
	}
	for _, f := range ref.Files {
		if f.Name == k.DeviceFile(runtime) {
			return f.Digest
		}
	}
	return nil
}
