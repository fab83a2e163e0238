package offload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/worker"
)

// errModule is a module that cannot be run: a fault of the job.
var errModule = errors.New("the kernel's module is of no use")

// errSlow is a module that takes too long to compile on this host.
var errSlow = fmt.Errorf("%w: it takes longer than %s to compile", errModule, compileLimit)

// compileLimit bounds the compilation of one module.
const compileLimit = 2 * time.Minute

// module returns the path of a kernel's module on this host. Modules are kept
// under their digest, so one is fetched once. The first task that needs it has
// it compiled; those that come meanwhile wait, and find it in the cache.
func (a *Agent) module(ctx context.Context, ref *wire.KernelRef) (string, error) {
	a.modules.Lock()
	defer a.modules.Unlock()
	file, err := a.fetch(ctx, ref)
	if err != nil || a.prepared[string(ref.Digest)] {
		return file, err
	}
	p, err := a.take(ctx)
	if err != nil {
		return "", err
	}
	defer a.give(p)
	// What is wrong with the module is told by the task that runs it.
	ctx, cancel := context.WithTimeoutCause(ctx, compileLimit, errSlow)
	defer cancel()
	if _, err := p.Run(ctx, &worker.Task{Run: worker.Run{Module: file, Digest: ref.Digest, Memory: jobfile.MaxMemory, Prepare: true}}); err != nil {
		return "", fmt.Errorf("compiling the kernel %s: %w", ref.Name, err)
	}
	a.prepared[string(ref.Digest)] = true
	return file, nil
}

// fetch makes the module a file on this host. modules is held.
func (a *Agent) fetch(ctx context.Context, ref *wire.KernelRef) (string, error) {
	if len(ref.Digest) != sha256.Size {
		return "", fmt.Errorf("%w: it has no digest", errModule)
	}
	return a.keep(ref.Digest, ".wasm", func() ([]byte, error) {
		wasm, err := kernels.ByDigest(ref.Digest)
		if wasm != nil || err != nil {
			return wasm, err
		}
		if ref.Ino == 0 {
			return nil, fmt.Errorf("this host's quern comes with another version of the kernel %s than the one that was submitted", ref.Name)
		}
		if wasm, err = readAll(ctx, a.cfg.Files, ref.Ino, worker.MaxModule); err != nil {
			return nil, fmt.Errorf("fetching the kernel %s: %w", ref.Name, err)
		}
		if !bytes.Equal(digestOf(wasm), ref.Digest) {
			return nil, fmt.Errorf("%w: %s has changed since the job was submitted", errModule, ref.Name)
		}
		return wasm, nil
	})
}

// keep returns the file of this host that holds what has this digest; get is
// asked for it if there is none. modules is held.
func (a *Agent) keep(digest []byte, suffix string, get func() ([]byte, error)) (string, error) {
	file := filepath.Join(a.cfg.Dir, "modules", hex.EncodeToString(digest)+suffix)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	data, err := get()
	if err != nil {
		return "", err
	}
	if err := writeFile(file, data); err != nil {
		return "", fmt.Errorf("keeping a kernel's file: %w", err)
	}
	return file, nil
}

func digestOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// kernelName is the name of a kernel without its version.
func kernelName(ref *wire.KernelRef) string {
	name, _, _ := strings.Cut(ref.Name, "@")
	return name
}

// writeFile puts data at name, whole or not at all. The worker checks the
// digest, so that a file torn by a crash is found.
func writeFile(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
