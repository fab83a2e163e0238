package offload

import (
	"slices"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// runtimesOf are those that a kernel has a variant for.
func runtimesOf(ref *wire.KernelRef) []string {
	if len(ref.GetRuntimes()) == 0 {
		return []string{jobfile.RuntimeWasm}
	}
	return ref.Runtimes
}

// candidates are the runtimes with which a step may run, the preferred first:
// those of prefer, the job file's list, that the kernel has a variant for;
// without a list its wasm variant, else what it has. A reduce step, which reads
// what others wrote, is always wasm.
func candidates(prefer []string, ref *wire.KernelRef, reduce bool) []string {
	have := runtimesOf(ref)
	switch {
	case reduce:
		prefer = []string{jobfile.RuntimeWasm}
	case len(prefer) == 0 && slices.Contains(have, jobfile.RuntimeWasm):
		return []string{jobfile.RuntimeWasm}
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

// pickRuntime is the first candidate that a host offers; if none is offered,
// the first, so that the task waits for it.
func pickRuntime(candidates []string, offered func(runtime string) bool) string {
	for _, r := range candidates {
		if offered(r) {
			return r
		}
	}
	if len(candidates) == 0 {
		return jobfile.RuntimeWasm
	}
	return candidates[0]
}
