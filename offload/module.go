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
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/worker"
)

// errModule is a module that cannot be run: a fault of the job.
var errModule = errors.New("the kernel's module is of no use")

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
	ctx, cancel := context.WithTimeoutCause(ctx, compileLimit, fmt.Errorf("%w: it takes longer than %s to compile", errModule, compileLimit))
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
	file := filepath.Join(a.cfg.Dir, "modules", hex.EncodeToString(ref.Digest)+".wasm")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	wasm, digest, err := kernels.Module()
	if err != nil {
		return "", err
	}
	if !bytes.Equal(digest, ref.Digest) {
		if ref.Ino == 0 {
			return "", fmt.Errorf("this host's quern comes with another version of the kernel %s than the one that was submitted", ref.Name)
		}
		if wasm, err = readAll(ctx, a.cfg.Files, ref.Ino, worker.MaxModule); err != nil {
			return "", fmt.Errorf("fetching the kernel %s: %w", ref.Name, err)
		}
		if sum := sha256.Sum256(wasm); !bytes.Equal(sum[:], ref.Digest) {
			return "", fmt.Errorf("%w: %s has changed since the job was submitted", errModule, ref.Name)
		}
	}
	if err := writeFile(file, wasm); err != nil {
		return "", fmt.Errorf("keeping the kernel %s: %w", ref.Name, err)
	}
	return file, nil
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
