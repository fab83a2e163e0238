package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/worker"
)

const kernelsPath = "/.compute/kernels"

// resolve finds the module of a step: one at a path of the mount, one of a user's
// own, one that was registered below /.compute/kernels, or one of those in the binary;
// in this order.
func (e *expander) resolve(ctx context.Context, s jobfile.Step) (*wire.KernelRef, error) {
	if s.Exec != nil {
		return program(s.Exec), nil
	}
	if s.Wasm != "" {
		inode, err := e.reach(ctx, s.Wasm, s.KernelLine)
		if err != nil {
			return nil, err
		}
		return e.pin(ctx, s.Wasm, s.Wasm, inode, nil, s.KernelLine)
	}
	if own, ok := strings.CutPrefix(s.Kernel, "~"); ok {
		return e.own(ctx, own, s.KernelLine)
	}
	name, version, _ := strings.Cut(s.Kernel, "@")
	ref, err := e.registered(ctx, name, version, s.KernelLine)
	if ref != nil || err != nil {
		return ref, err
	}
	if k, ok := kernels.Find(name, version); ok && name == classifyName {
		return e.classify(ctx, s)
	} else if ok {
		_, digest, err := k.Module()
		if err != nil {
			return nil, err
		}
		ref := &wire.KernelRef{Name: k.Name + "@" + kernels.Version, Digest: digest, Args: k.Args}
		return ref, bundleVariants(ref, k.Name)
	}
	return nil, problem(wire.NotFound, e.job, s.KernelLine, "there is no kernel %q%s; ls %s shows those that were registered, the README those that come with quern",
		s.Kernel, e.kernelHint(ctx, name), kernelsPath)
}

// bundleVariants adds what a bundled kernel has beside its wasm variant.
func bundleVariants(ref *wire.KernelRef, name string) error {
	manifest := kernels.Manifest(name)
	if manifest == nil {
		return nil
	}
	k, err := jobfile.ParseKernel(manifest)
	if err != nil {
		return fmt.Errorf("the bundled kernel %s: %w", name, err)
	}
	ref.Manifest = manifest
	for _, r := range k.Runtimes() {
		if r == jobfile.RuntimeWasm || kernels.File(name, k.DeviceFile(r)) != nil {
			ref.Runtimes, ref.Rates = append(ref.Runtimes, r), append(ref.Rates, uint64(k.Rate[r]))
		} else {
			ref.Unsigned = append(ref.Unsigned, r) // only its source comes with quern
		}
	}
	for _, file := range k.Files() {
		if data := kernels.File(name, file); data != nil {
			ref.Files = append(ref.Files, &wire.KernelFile{Name: file, Digest: digestOf(data), Size: uint64(len(data))})
		}
	}
	return nil
}

// usable checks that a step can run with one of the runtimes that the job file
// names.
func (e *expander) usable(prefer []string, preferLine int, ref *wire.KernelRef, reduce bool, line int) error {
	switch {
	case len(candidates(prefer, ref, reduce)) > 0:
		return nil
	case reduce:
		return problem(wire.Invalid, e.job, line, "the reduce step needs a wasm variant, and kernel %s has %s", ref.Name, list(runtimesOf(ref)))
	}
	if unsigned := slices.DeleteFunc(slices.Clone(ref.Unsigned), func(r string) bool { return len(prefer) > 0 && !slices.Contains(prefer, r) }); len(unsigned) > 0 {
		return problem(wire.Invalid, e.job, cmp.Or(preferLine, line), "the variant of kernel %s for %s lacks its file, or the signature beside that (.sig): an administrator builds and signs it", ref.Name, list(unsigned))
	}
	return problem(wire.Invalid, e.job, preferLine, "kernel %s has no variant for %s; it has %s", ref.Name, list(prefer), list(runtimesOf(ref)))
}

// splits refuses a way to cut inputs that the kernel of the map step cannot work
// with.
func (e *expander) splits(spec *jobfile.Spec, ref *wire.KernelRef) error {
	if len(ref.Manifest) == 0 {
		return nil
	}
	k, err := jobfile.ParseKernel(ref.Manifest)
	if err != nil {
		return problem(wire.Invalid, e.job, spec.Map.KernelLine, "the manifest of %s: %v", ref.Name, err)
	}
	if k.Splits == nil || slices.Contains(k.Splits, spec.Split) {
		return nil
	}
	var names []string
	for _, s := range k.Splits {
		names = append(names, string(s))
	}
	return problem(wire.Invalid, e.job, max(spec.SplitLine, spec.Map.KernelLine), "kernel %s does not work with split: %s; it does with %s", ref.Name, spec.Split, list(names))
}

// headerLines is how many lines of a file each part of it begins with, that is
// cut at lines.
func headerLines(spec *jobfile.Spec, ref *wire.KernelRef) int {
	if spec.Header >= 0 || len(ref.GetManifest()) == 0 {
		return max(spec.Header, 0)
	}
	k, err := jobfile.ParseKernel(ref.Manifest)
	if err != nil {
		return 0
	}
	return k.Header
}

func (e *expander) kernelHint(ctx context.Context, name string) string {
	var names []string
	for _, k := range kernels.Bundled {
		names = append(names, k.Name)
	}
	if entries, err := e.files.ReadDir(ctx, kernelsPath); err == nil {
		for _, d := range entries {
			names = append(names, d.Name)
		}
	}
	return jobfile.DidYouMean(name, names)
}

// registered finds NAME/VERSION/ below /.compute/kernels; nil if there is no
// such name there. Without a version it takes the highest.
func (e *expander) registered(ctx context.Context, name, version string, line int) (*wire.KernelRef, error) {
	return e.kernelIn(ctx, path.Join(kernelsPath, name), name, version, e.pinRegistered, line)
}

// pinner pins the files of a kernel in a directory.
type pinner func(ctx context.Context, full, dir string, k *jobfile.Kernel, manifest []byte, line int) (*wire.KernelRef, error)

// kernelIn finds VERSION/ in the directory of a kernel.
func (e *expander) kernelIn(ctx context.Context, dir, name, version string, pin pinner, line int) (*wire.KernelRef, error) {
	entries, err := e.files.ReadDir(ctx, dir)
	if errors.Is(err, wire.NotFound) || errors.Is(err, wire.NotDir) {
		return nil, nil
	}
	if err != nil {
		return nil, e.statError(err, dir, line)
	}
	var versions []string
	for _, d := range entries {
		if isDir(d.Type) && !strings.HasPrefix(d.Name, ".") {
			versions = append(versions, d.Name)
		}
	}
	slices.SortFunc(versions, compareVersions)
	switch {
	case version != "" && !slices.Contains(versions, version):
		if _, ok := kernels.Find(name, version); ok {
			return nil, nil
		}
		return nil, problem(wire.NotFound, e.job, line, "kernel %s has no version %s; it has %s", name, version, list(versions))
	case len(versions) == 0:
		return nil, nil
	case version == "":
		version = versions[len(versions)-1]
	}
	dir = path.Join(dir, version)
	manifest := path.Join(dir, "kernel.yaml")
	inode, err := e.reach(ctx, manifest, line)
	if err != nil {
		return nil, err
	}
	data, err := e.read(ctx, manifest, inode, jobfile.MaxFile, line)
	if err != nil {
		return nil, err
	}
	k, err := jobfile.ParseKernel(data)
	if err != nil {
		return nil, problem(wire.Invalid, e.job, line, "%s: %v", manifest, err)
	}
	return pin(ctx, name+"@"+version, dir, k, data, line)
}

func (e *expander) pinRegistered(ctx context.Context, full, dir string, k *jobfile.Kernel, manifest []byte, line int) (*wire.KernelRef, error) {
	if k.Wasm != "" && len(k.Runtimes()) == 1 && k.Test == nil && k.Header == 0 && k.Splits == nil {
		return e.pinned(ctx, full, dir, k, line)
	}
	return e.pinBundle(ctx, full, dir, k, manifest, line)
}

// pinned is the wasm variant of a kernel.
func (e *expander) pinned(ctx context.Context, name, dir string, k *jobfile.Kernel, line int) (*wire.KernelRef, error) {
	module := path.Join(dir, k.Wasm)
	inode, err := e.reach(ctx, module, line)
	if err != nil {
		return nil, err
	}
	return e.pin(ctx, name, module, inode, k.Args, line)
}

// maxManifest bounds what a job's record keeps of a manifest, in bytes.
const maxManifest = 16 << 10

// pinBundle pins all files of a kernel with several variants.
func (e *expander) pinBundle(ctx context.Context, name, dir string, k *jobfile.Kernel, manifest []byte, line int) (*wire.KernelRef, error) {
	if len(manifest) > maxManifest {
		return nil, problem(wire.Invalid, e.job, line, "%s/kernel.yaml is larger than %d KiB", dir, maxManifest>>10)
	}
	ref := &wire.KernelRef{Name: name, Args: k.Args}
	if k.Wasm != "" {
		var err error
		if ref, err = e.pinned(ctx, name, dir, k, line); err != nil {
			return nil, err
		}
	}
	ref.Manifest = manifest
	var missing []string
	for _, r := range k.Runtimes() {
		lacks, err := e.lacks(ctx, dir, k, r)
		switch {
		case err != nil:
			return nil, err
		case lacks:
			ref.Unsigned = append(ref.Unsigned, r)
			missing = append(missing, k.DeviceFile(r), k.DeviceFile(r)+jobfile.SignatureSuffix)
		default:
			ref.Runtimes, ref.Rates = append(ref.Runtimes, r), append(ref.Rates, uint64(k.Rate[r]))
		}
	}
	for _, file := range k.Files() {
		if file == k.Wasm || slices.Contains(missing, file) {
			continue
		}
		p := path.Join(dir, file)
		inode, err := e.reach(ctx, p, line)
		if err != nil {
			return nil, err
		}
		data, err := e.read(ctx, p, inode, worker.MaxModule, line)
		if err != nil {
			return nil, err
		}
		f := &wire.KernelFile{Name: file, Digest: digestOf(data), Ino: inode.Attr.Ino, Size: inode.Attr.Size, Uid: inode.Attr.Uid, Mode: inode.Attr.Mode & 0o777}
		ref.Files = append(ref.Files, f)
		if ref.Ino == 0 && len(ref.Runtimes) > 0 && file == k.DeviceFile(ref.Runtimes[0]) {
			ref.Digest, ref.Ino, ref.Size = f.Digest, f.Ino, f.Size
		}
	}
	return ref, nil
}

// lacks says whether the variant for a runtime is one that has to be signed, and
// has not been.
func (e *expander) lacks(ctx context.Context, dir string, k *jobfile.Kernel, runtime string) (bool, error) {
	if !jobfile.Signed(runtime) {
		return false, nil
	}
	file := path.Join(dir, k.DeviceFile(runtime))
	for _, p := range []string{file, file + jobfile.SignatureSuffix} {
		if _, err := e.files.Stat(ctx, p); errors.Is(err, wire.NotFound) {
			return true, nil
		} else if err != nil {
			return false, problem(wire.CodeOf(err), e.job, 0, "%s: %v", p, err)
		}
	}
	return false, nil
}

// pin reads a module and takes its digest.
func (e *expander) pin(ctx context.Context, name, p string, inode *wire.Inode, args []string, line int) (*wire.KernelRef, error) {
	wasm, err := e.read(ctx, p, inode, worker.MaxModule, line)
	if err != nil {
		return nil, err
	}
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return nil, problem(wire.Invalid, e.job, line, "%s is not a WebAssembly module", p)
	}
	return &wire.KernelRef{Name: name, Digest: digestOf(wasm), Ino: inode.Attr.Ino, Size: inode.Attr.Size, Args: args}, nil
}

// read returns the whole content of a file that cred may read.
func (e *expander) read(ctx context.Context, p string, inode *wire.Inode, most int64, line int) ([]byte, error) {
	if !isFile(inode.Attr.Mode) {
		return nil, problem(wire.Invalid, e.job, line, "%s is not a regular file", p)
	}
	if err := e.may(ctx, inode, 4, p, line); err != nil {
		return nil, err
	}
	data, err := readAll(ctx, e.files, inode.Attr.Ino, most)
	if err != nil {
		if errors.Is(err, wire.FileTooBig) {
			return nil, problem(wire.Invalid, e.job, line, "%s is larger than %d KiB", p, most>>10)
		}
		return nil, problem(wire.CodeOf(err), e.job, line, "reading %s: %v", p, err)
	}
	return data, nil
}

// readAll reads a file of at most most bytes.
func readAll(ctx context.Context, files Files, ino uint64, most int64) ([]byte, error) {
	data, _, err := readFile(ctx, files, ino, most)
	return data, err
}

// readFile is readAll that also tells the file's mode.
func readFile(ctx context.Context, files Files, ino uint64, most int64) (data []byte, mode uint32, err error) {
	f, err := files.OpenInode(ctx, ino)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	mode = f.Inode().GetAttr().GetMode()
	size := int64(f.Inode().GetAttr().GetSize())
	if size > most {
		return nil, mode, wire.Errorf(wire.FileTooBig, "read", fmt.Sprintf("ino %d", ino), "larger than %d bytes", most)
	}
	buf := make([]byte, size)
	for n := 0; n < len(buf); {
		m, err := f.ReadAt(ctx, buf[n:], int64(n))
		n += m
		if err != nil || m == 0 {
			if n == len(buf) {
				break
			}
			if err == nil || errors.Is(err, io.EOF) {
				return buf[:n], mode, nil // it became shorter
			}
			return nil, mode, err
		}
	}
	return buf, mode, nil
}

// compareVersions orders versions as people do: runs of digits by value.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			x, _ := strconv.ParseUint(a[:da], 10, 64)
			y, _ := strconv.ParseUint(b[:db], 10, 64)
			if c := cmp.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
