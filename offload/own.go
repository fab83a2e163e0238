package offload

import (
	"context"
	"errors"
	"os/user"
	"path"
	"strconv"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// A user keeps kernels and rules of his own in a directory below /.compute/users whose
// name is his number, and which belongs to him: there the metadata servers let him make
// that directory only, and here nothing counts that belongs to somebody else. A kernel
// of one's own is called ~/NAME, so that none ever takes the place of a shared one.

const usersPath = "/.compute/users"

// userDir is where a user keeps what is his own.
func userDir(uid uint32) string { return path.Join(usersPath, strconv.FormatUint(uint64(uid), 10)) }

// ownDir is the directory called name of what a user keeps, "" that itself; nil: there is
// none that belongs to him.
func ownDir(ctx context.Context, files Files, uid uint32, name string) (*wire.Inode, error) {
	var in *wire.Inode
	for _, p := range []string{userDir(uid), path.Join(userDir(uid), name)} {
		var err error
		in, err = files.Stat(ctx, p)
		if errors.Is(err, wire.NotFound) || errors.Is(err, wire.NotDir) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if a := in.GetAttr(); !isDir(a.GetMode()) || a.GetUid() != uid {
			return nil, nil
		}
	}
	return in, nil
}

// own finds a kernel of a user's own: ref is what follows the ~ of its name. That of
// another user is one that cred may read.
func (e *expander) own(ctx context.Context, ref string, line int) (*wire.KernelRef, error) {
	who, name, _ := strings.Cut(ref, "/")
	uid := e.cred.GetUid()
	if who != "" {
		var err error
		if uid, err = userNumber(who); err != nil {
			return nil, problem(wire.NotFound, e.job, line, "there is no user %s on this host, whose kernel %s is asked for", who, name)
		}
	}
	base := path.Join(userDir(uid), "kernels")
	missing := problem(wire.NotFound, e.job, line, "there is no kernel ~%s: it would be %s/%s of uid %d", ref, base, strings.Replace(name, "@", "/", 1), uid)
	in, err := ownDir(ctx, e.files, uid, "kernels")
	if err != nil {
		return nil, problem(wire.CodeOf(err), e.job, line, "%s: %v", base, err)
	}
	if in == nil {
		return nil, missing
	}
	name, version, _ := strings.Cut(name, "@")
	dir := path.Join(base, name)
	if in, err = e.reach(ctx, dir, line); errors.Is(err, wire.NotFound) {
		return nil, missing
	} else if err != nil {
		return nil, err
	}
	if err := e.may(ctx, in, 4|1, dir, line); err != nil {
		return nil, err
	}
	found, err := e.kernelIn(ctx, dir, "~"+strconv.FormatUint(uint64(uid), 10)+"/"+name, version, e.pinOwn, line)
	if found == nil && err == nil {
		err = missing
	}
	return found, err
}

// pinOwn pins the wasm variant of a kernel of a user's own, and no other: what runs on
// a device shares its memory, or the agent's, with the tasks of others.
func (e *expander) pinOwn(ctx context.Context, full, dir string, k *jobfile.Kernel, manifest []byte, line int) (*wire.KernelRef, error) {
	if k.Wasm == "" {
		return nil, problem(wire.Invalid, e.job, line, "kernel %s has no variant for wasm, with which alone kernels of users run; an administrator may put it below %s", full, kernelsPath)
	}
	ref, err := e.pinned(ctx, full, dir, k, line)
	if err != nil || k.Header == 0 && k.Splits == nil {
		return ref, err
	}
	if len(manifest) > maxManifest {
		return nil, problem(wire.Invalid, e.job, line, "%s/kernel.yaml is larger than %d KiB", dir, maxManifest>>10)
	}
	ref.Manifest = manifest
	ref.Runtimes, ref.Rates = []string{jobfile.RuntimeWasm}, []uint64{uint64(k.Rate[jobfile.RuntimeWasm])}
	return ref, nil
}

// userNumber is the number of a user of this host, or the number itself.
func userNumber(who string) (uint32, error) {
	if n, err := strconv.ParseUint(who, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(who)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}
