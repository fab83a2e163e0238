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

	"quernfs/internal/wire"
	"quernfs/offload/kernels"
	"quernfs/offload/worker"
)

// errModule is a module that is not the one that was submitted.
var errModule = errors.New("the kernel's module has changed since the job was submitted")

// module returns the path of a kernel's module on this host. Modules are kept
// under their digest, so one is fetched once.
func (a *Agent) module(ctx context.Context, ref *wire.KernelRef) (string, error) {
	if len(ref.Digest) != sha256.Size {
		return "", fmt.Errorf("%w: it has no digest", errModule)
	}
	file := filepath.Join(a.cfg.Dir, "modules", hex.EncodeToString(ref.Digest)+".wasm")
	a.modules.Lock()
	defer a.modules.Unlock()
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	wasm, digest, err := kernels.Module()
	if err != nil {
		return "", err
	}
	if !bytes.Equal(digest, ref.Digest) {
		if ref.Ino == 0 {
			return "", fmt.Errorf("%w: this host's quern comes with another version of %s", errModule, ref.Name)
		}
		if wasm, err = readAll(ctx, a.cfg.Files, ref.Ino, worker.MaxModule); err != nil {
			return "", fmt.Errorf("fetching the kernel %s: %w", ref.Name, err)
		}
		if sum := sha256.Sum256(wasm); !bytes.Equal(sum[:], ref.Digest) {
			return "", fmt.Errorf("%w: %s", errModule, ref.Name)
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
