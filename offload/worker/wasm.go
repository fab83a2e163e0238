package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

const pageSize = 64 << 10

// MaxModule bounds a module's file, in bytes.
const MaxModule = 64 << 20

// engine compiles modules and runs them. One goroutine uses it.
type engine struct {
	cache wazero.CompilationCache
	ready []*compiled // the most recently used last
}

// keep is how many compiled modules stay in memory.
const keep = 8

// compiled is one module under one memory limit, which belongs to the runtime.
type compiled struct {
	digest  string
	pages   uint32
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

// newEngine makes an engine whose compiled code is kept in dir ("": in memory
// only).
func newEngine(dir string) (*engine, error) {
	if dir == "" {
		return &engine{cache: wazero.NewCompilationCache()}, nil
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, err
	}
	return &engine{cache: cache}, nil
}

func (e *engine) compile(ctx context.Context, r *Run) (*compiled, error) {
	pages := uint32(min(max(r.Memory/pageSize, 1), 65536))
	for i, c := range e.ready {
		if c.digest == string(r.Digest) && c.pages == pages {
			e.ready = append(append(e.ready[:i:i], e.ready[i+1:]...), c)
			return c, nil
		}
	}
	wasm, err := ReadModule(r.Module, r.Digest)
	if err != nil {
		return nil, err
	}
	config := wazero.NewRuntimeConfig().WithCompilationCache(e.cache).WithMemoryLimitPages(pages)
	runtime := wazero.NewRuntimeWithConfig(ctx, config)
	c := &compiled{string(r.Digest), pages, runtime, nil}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, runtime); err != nil {
		runtime.Close(ctx)
		return nil, err
	}
	if c.module, err = runtime.CompileModule(ctx, wasm); err != nil {
		runtime.Close(ctx)
		return nil, fmt.Errorf("the module does not compile: %w", err)
	}
	e.ready = append(e.ready, c)
	if len(e.ready) > keep {
		e.ready[0].runtime.Close(ctx)
		e.ready = e.ready[1:]
	}
	return c, nil
}

// ReadModule reads the module's file and checks its digest.
func ReadModule(name string, digest []byte) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	wasm, err := io.ReadAll(io.LimitReader(f, MaxModule+1))
	if err != nil {
		return nil, err
	}
	if len(wasm) > MaxModule {
		return nil, fmt.Errorf("the module is larger than %d MiB", MaxModule>>20)
	}
	if sum := sha256.Sum256(wasm); !bytes.Equal(sum[:], digest) {
		return nil, errors.New("the module is not the one that was submitted")
	}
	return wasm, nil
}

// run executes r over in. Whatever the module does becomes an Exit.
func (e *engine) run(ctx context.Context, r *Run, in *inputs, stdout, stderr io.Writer) Exit {
	before := cpu()
	c, err := e.compile(ctx, r)
	if err != nil {
		return Exit{Code: -1, Trap: firstLine(err), CPU: cpu() - before}
	}
	if r.Prepare {
		return Exit{CPU: cpu() - before}
	}
	mem := &memory{}
	ctx = experimental.WithMemoryAllocator(ctx, mem)
	config := wazero.NewModuleConfig().
		WithName("").
		WithArgs(r.Args...).
		WithStdin(in.stream()).
		WithStdout(stdout).
		WithStderr(stderr).
		WithSysWalltime().
		WithSysNanotime().
		WithSysNanosleep().
		WithFSConfig(wazero.NewFSConfig().WithFSMount(in, "/in"))
	for _, kv := range r.Env {
		k, v, _ := strings.Cut(kv, "=")
		config = config.WithEnv(k, v)
	}
	mod, err := c.runtime.InstantiateModule(ctx, c.module, config)
	if mod != nil {
		mod.Close(ctx)
	}
	exit := Exit{PeakMemory: mem.peak, CPU: cpu() - before}
	var code *sys.ExitError
	switch {
	case errors.As(err, &code):
		exit.Code = int(int32(code.ExitCode()))
	case err != nil:
		exit.Code, exit.Trap = -1, firstLine(err)
	}
	return exit
}

// firstLine keeps the reason of a trap and leaves out the stack.
func firstLine(err error) string {
	s := err.Error()
	if i := strings.Index(s, "failed: "); i >= 0 && strings.HasPrefix(s, "module[") {
		s = s[i+len("failed: "):]
	}
	s, _, _ = strings.Cut(s, "\n")
	s = strings.TrimSuffix(strings.TrimPrefix(s, "wasm error: "), " (recovered by wazero)")
	if len(s) > 500 {
		s = s[:500]
	}
	return s
}

// CPU is the processor time of this process, in nanoseconds.
func CPU() int64 { return cpu() }

// cpu is the processor time of this process, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// memory gives a module its linear memory: address space up to its limit,
// reserved once, so that growing copies nothing, and returned to the system at
// the end.
type memory struct{ peak int64 }

func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	b, err := syscall.Mmap(-1, 0, int(max(most, pageSize)), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		return &mapped{m, nil}
	}
	return &mapped{m, b}
}

type mapped struct {
	m *memory
	b []byte
}

func (p *mapped) Reallocate(size uint64) []byte {
	if size > uint64(len(p.b)) {
		return nil
	}
	p.m.peak = max(p.m.peak, int64(size))
	return p.b[:size]
}

func (p *mapped) Free() {
	if p.b != nil {
		_ = syscall.Munmap(p.b)
		p.b = nil
	}
}
