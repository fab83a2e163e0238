package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// A module that exports the function quern_task, from nothing to an exit status
// (i32), and no _start, is a reactor: one instance of it serves one run after the
// other. Its _initialize, if it has one, is called once, without inputs, arguments or
// environment; then its memory is kept as it is, and put back after each
// run. So a run finds what _initialize left, and nothing of another run
// (docs/decisions/0060).
//
// The globals are put back, too. What cannot be is looked at: an instance is used
// again only if the function has returned, the memory has not grown, and the
// descriptors are what they were.
const (
	taskFunction = "quern_task"
	initFunction = "_initialize"
)

// isReactor says which of the two a module is.
func isReactor(m wazero.CompiledModule) bool {
	exports := m.ExportedFunctions()
	f := exports[taskFunction]
	if f == nil || exports["_start"] != nil {
		return false
	}
	r := f.ResultTypes()
	return len(f.ParamTypes()) == 0 && len(r) == 1 && r[0] == api.ValueTypeI32
}

// instance is one instance of a reactor. One goroutine uses it.
type instance struct {
	mod     api.Module
	task    api.Function
	mem     *memory
	stage   *stage
	globals globals // after _initialize
	once    bool    // the globals cannot be put back
}

// stage is the outside of an instance: what it sees of the run under way. The zero
// value shows nothing.
type stage struct {
	args, env      []string
	in             *inputs
	stdin          io.Reader
	stdout, stderr io.Writer
	random         *rand.ChaCha8
	spoilt         bool // a descriptor is not what it was
	roots          int  // how often /in itself is open
}

// set shows a run.
func (s *stage) set(r *Run, in *inputs, stdout, stderr io.Writer) {
	*s = stage{args: moduleArgs(r.Args), env: r.Env, in: in, stdin: in.stream(), stdout: stdout, stderr: stderr, roots: s.roots}
}

// Open implements fs.FS: it is /in.
func (s *stage) Open(name string) (fs.File, error) {
	if name != "." {
		return s.in.Open(name)
	}
	s.roots++
	return &rootDir{s: s}, nil
}

// asBefore says whether the descriptors are those that a run began with. wazero
// opens /in once by itself, and keeps it open.
func (s *stage) asBefore() bool { return !s.spoilt && s.in.open == 0 && s.roots <= 1 }

// rootDir is /in, of whichever run is under way.
type rootDir struct {
	s   *stage
	in  *inputs // whose entries dir lists
	dir openDir
}

func (d *rootDir) Stat() (fs.FileInfo, error) { return dirInfo{"."}, nil }
func (d *rootDir) Close() error               { d.s.roots--; return nil }
func (d *rootDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}

func (d *rootDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.in != d.s.in {
		d.in, d.dir = d.s.in, openDir{dir: d.s.in.root}
	}
	return d.dir.ReadDir(n)
}

type stageStdin struct{ s *stage }
type stageStdout struct{ s *stage }
type stageStderr struct{ s *stage }
type stageRandom struct{ s *stage }

func (x stageStdin) Read(p []byte) (int, error)   { return x.s.stdin.Read(p) }
func (x stageStdout) Write(p []byte) (int, error) { return x.s.stdout.Write(p) }
func (x stageStderr) Write(p []byte) (int, error) { return x.s.stderr.Write(p) }

// Read gives each run the same numbers.
func (x stageRandom) Read(p []byte) (int, error) {
	if x.s.random == nil {
		x.s.random = rand.NewChaCha8([32]byte{})
	}
	return x.s.random.Read(p)
}

type stageKey struct{}

// instantiateReactorWASI makes WASI for reactors in runtime: arguments and
// environment are those of the run under way, and changes to descriptors that
// runs share are noted.
func instantiateReactorWASI(ctx context.Context, runtime wazero.Runtime) error {
	ctx = experimental.WithFunctionListenerFactory(ctx, descriptorWatch{})
	b := runtime.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	for name, list := range map[string]func(s *stage) []string{
		"args":    func(s *stage) []string { return s.args },
		"environ": func(s *stage) []string { return s.env },
	} {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, n, size uint32) uint32 {
			return putSizes(m.Memory(), list(ctx.Value(stageKey{}).(*stage)), n, size)
		}).Export(name + "_sizes_get")
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, at, text uint32) uint32 {
			return putStrings(m.Memory(), list(ctx.Value(stageKey{}).(*stage)), at, text)
		}).Export(name + "_get")
	}
	_, err := b.Instantiate(ctx)
	return err
}

// errnoFault is EFAULT of WASI.
const errnoFault = 21

// putSizes writes how many strings there are, and the bytes that they take with a
// zero byte each.
func putSizes(m api.Memory, list []string, n, size uint32) uint32 {
	bytes := 0
	for _, s := range list {
		bytes += len(s) + 1
	}
	if m == nil || !m.WriteUint32Le(n, uint32(len(list))) || !m.WriteUint32Le(size, uint32(bytes)) {
		return errnoFault
	}
	return 0
}

// putStrings writes the strings to text, a zero byte after each, and where each
// begins to at.
func putStrings(m api.Memory, list []string, at, text uint32) uint32 {
	for i, s := range list {
		if m == nil || !m.WriteUint32Le(at+4*uint32(i), text) || !m.WriteString(text, s) || !m.WriteByte(text+uint32(len(s)), 0) {
			return errnoFault
		}
		text += uint32(len(s)) + 1
	}
	return 0
}

// descriptorWatch notes when the descriptors that are there at the start, of the
// standard streams and /in, are closed, or any is renumbered.
type descriptorWatch struct{}

const firstFree = 4

func (w descriptorWatch) NewFunctionListener(f api.FunctionDefinition) experimental.FunctionListener {
	for _, name := range f.ExportNames() {
		if name == "fd_close" || name == "fd_renumber" {
			return w
		}
	}
	return nil
}

func (descriptorWatch) Before(ctx context.Context, _ api.Module, f api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
	s, ok := ctx.Value(stageKey{}).(*stage)
	if ok && (int32(params[0]) < firstFree || f.ExportNames()[0] == "fd_renumber") {
		s.spoilt = true
	}
}

func (descriptorWatch) After(context.Context, api.Module, api.FunctionDefinition, []uint64) {}
func (descriptorWatch) Abort(context.Context, api.Module, api.FunctionDefinition, error)    {}

// newInstance makes an instance of a reactor and has it initialized. What that
// writes to the standard error goes to stderr.
func newInstance(ctx context.Context, c *compiled, stderr io.Writer) (*instance, error) {
	empty := newInputs(nil)
	empty.seal()
	i := &instance{mem: &memory{}, stage: &stage{in: empty, stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr}}
	ctx = context.WithValue(ctx, stageKey{}, i.stage)
	config := moduleConfig(stageStdin{i.stage}, stageStdout{i.stage}, stageStderr{i.stage}, i.stage).
		WithRandSource(stageRandom{i.stage}).
		WithStartFunctions(initFunction)
	var err error
	if i.mod, err = c.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, i.mem), c.module, config); err != nil {
		if i.mod != nil {
			i.mod.Close(ctx)
		}
		return nil, err
	}
	i.task = i.mod.ExportedFunction(taskFunction)
	var ok bool
	i.globals, ok = keepGlobals(i.mod, c.globals)
	i.once = !ok
	if err := i.mem.keep(); err != nil {
		i.mod.Close(ctx)
		return nil, fmt.Errorf("keeping the memory of the module: %w", err)
	}
	return i, nil
}

// run carries out one run. again: the instance may be used for the next one,
// and shows nothing of this one.
func (i *instance) run(ctx context.Context, r *Run, in *inputs, stdout, stderr io.Writer) (status int, again bool, err error) {
	i.stage.set(r, in, stdout, stderr)
	i.mem.peak = i.mem.size()
	res, err := i.task.Call(context.WithValue(ctx, stageKey{}, i.stage))
	if err != nil {
		return 0, false, err
	}
	again = !i.once && i.stage.asBefore() && !i.mod.IsClosed() && i.mem.restore() == nil
	i.globals.restore()
	return int(int32(res[0])), again, nil
}

// runReactor executes r on the instance of c, which is made if there is none.
func (c *compiled) runReactor(ctx context.Context, r *Run, in *inputs, stdout, stderr io.Writer) (exit Exit) {
	i := c.warm
	if i == nil {
		var err error
		if i, err = newInstance(ctx, c, stderr); err != nil {
			return ended(err)
		}
	}
	status, again, err := i.run(ctx, r, in, stdout, stderr)
	exit = ended(err)
	if err == nil {
		exit.Code = status
	}
	exit.PeakMemory = i.mem.peak
	if c.warm = i; !again {
		i.mod.Close(ctx)
		c.warm = nil
	}
	return exit
}

// ended is how a run ended whose module was left with err.
func ended(err error) (exit Exit) {
	var code *sys.ExitError
	switch {
	case errors.As(err, &code):
		exit.Code = int(int32(code.ExitCode()))
	case err != nil:
		exit.Code, exit.Trap = -1, firstLine(err)
	}
	return exit
}
