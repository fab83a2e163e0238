package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"quernfs/internal/rawtext"
)

const pageSize = 64 << 10

// MaxModule bounds a module's file, in bytes.
const MaxModule = 64 << 20

// engine compiles modules and runs them. One goroutine uses it.
type engine struct {
	cache wazero.CompilationCache
	ready []*compiled // the most recently used last
}

// threads is how many processors a worker uses at most: one runs the module, the
// other collects garbage, and both compile.
const threads = 2

// keep is how many compiled modules stay in memory.
const keep = 8

// compiled is one module under one memory limit, which belongs to the runtime.
type compiled struct {
	digest  string
	pages   uint32
	runtime wazero.Runtime
	module  wazero.CompiledModule
	reactor bool
	globals uint32    // how many a reactor has
	warm    *instance // of a reactor; nil: none
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
	c := &compiled{digest: string(r.Digest), pages: pages, runtime: runtime}
	if bytes.Contains(wasm, []byte(taskFunction)) { // it may be a reactor
		if with, n, err := withGlobals(wasm); err == nil {
			wasm, c.globals = with, n
		}
	}
	if c.module, err = runtime.CompileModule(experimental.WithCompilationWorkers(ctx, threads), wasm); err != nil {
		runtime.Close(ctx)
		return nil, fmt.Errorf("the module does not compile: %w", err)
	}
	if c.reactor = isReactor(c.module); c.reactor {
		err = instantiateReactorWASI(ctx, runtime)
	} else {
		_, err = wasi_snapshot_preview1.Instantiate(ctx, runtime)
	}
	if err != nil {
		runtime.Close(ctx)
		return nil, err
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
	var exit Exit
	if c.reactor {
		exit = c.runReactor(ctx, r, in, stdout, stderr)
	} else {
		exit = c.runCommand(ctx, r, in, stdout, stderr)
	}
	exit.CPU = cpu() - before
	return exit
}

// runCommand executes r on an instance of its own.
func (c *compiled) runCommand(ctx context.Context, r *Run, in *inputs, stdout, stderr io.Writer) Exit {
	mem := &memory{}
	config := moduleConfig(in.stream(), stdout, stderr, in).WithArgs(moduleArgs(r.Args)...)
	for _, kv := range r.Env {
		k, v, _ := strings.Cut(kv, "=")
		config = config.WithEnv(k, v)
	}
	mod, err := c.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), c.module, config)
	if mod != nil {
		mod.Close(ctx)
	}
	exit := ended(err)
	exit.PeakMemory = mem.peak
	return exit
}

// moduleArgs are the arguments of a module: paths of inputs are those of its
// filesystem, which are Unicode (see inputs.add).
func moduleArgs(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if strings.HasPrefix(a, "/in/") {
			out[i] = rawtext.Hide(a)
		}
	}
	return out
}

// moduleConfig is what every instance sees.
func moduleConfig(stdin io.Reader, stdout, stderr io.Writer, in fs.FS) wazero.ModuleConfig {
	return wazero.NewModuleConfig().
		WithName("").
		WithStdin(stdin).
		WithStdout(stdout).
		WithStderr(stderr).
		WithSysWalltime().
		WithSysNanotime().
		WithSysNanosleep().
		WithFSConfig(wazero.NewFSConfig().WithFSMount(in, "/in"))
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
