package jobfile

import (
	"fmt"
	"time"
)

// Limits of a job file.
const (
	MaxFile    = 64 << 10
	MaxInputs  = 256 // entries of inputs, before globs are expanded
	MaxArgs    = 256
	MaxParams  = 64
	MaxTimeout = 24 * time.Hour
	MaxRetries = 20
	MinMemory  = 1 << 20
	MaxMemory  = 4 << 30

	MinOutputLimit = 1 << 10
	MaxOutputLimit = 1 << 40

	MinLogLimit = 16 << 10
	MaxLogLimit = 1 << 30
)

// Defaults of a job file.
const (
	DefaultTimeout = 10 * time.Minute
	DefaultRetries = 2
	DefaultMemory  = 256 << 20
	DefaultOutput  = "output"

	DefaultOutputLimit = 16 << 30
	DefaultLogLimit    = 8 << 20
)

// Step is one module or program run over some inputs. Exactly one of Kernel,
// Wasm and Exec is set, except in a reduce step, where none means that of the
// map.
type Step struct {
	Kernel string // NAME or NAME@VERSION
	Wasm   string // a path of the mount
	Exec   *Exec  // a program of the host
	Args   []string
	Params []Param // sorted by key

	KernelLine int // of kernel, wasm or exec; 0 if none is given
}

// Param becomes QUERN_KEY=Value in the module's environment.
type Param struct{ Key, Value string }

// Input is one entry of inputs.
type Input struct {
	Pattern string // absolute, clean
	Line    int
	// Marked: Above says how many names of the pattern lie above the tree, that is
	// before the "/./" in it.
	Marked bool
	Above  int
}

// Spec is a job file that has been checked.
type Spec struct {
	Name   string // "" or the job's name, the same as the file's
	Map    Step
	Inputs []Input
	Split  Split
	// TaskBytes is how many bytes of input one task gets, about; 0: as the split has it.
	TaskBytes int64
	// Header is how many lines at the beginning of a file are its header, which
	// every part of it that is cut at lines begins with; -1: as the kernel has it.
	Header        int
	Combine       *Step // what runs over the output of each map task, where it ran; nil: nothing
	Reduce        *Step // nil: none
	Output        string
	Timeout       time.Duration
	Retries       int
	NoSpeculation bool  // a late task gets no second attempt beside the first
	Memory        int64 // bytes
	OutputLimit   int64 // bytes that one task may write; 0: DefaultOutputLimit
	LogLimit      int64 // bytes that are kept of each of its standard streams
	// Notify is the file of the mount that gets a line when the job has ended; "": none.
	Notify string
	// Runtime has the runtimes that the map step may use, the preferred first;
	// none: as the kernel has it.
	Runtime []string

	Life
	Failure
	Placement

	NameLine, OutputLine, RuntimeLine, NotifyLine, SplitLine int

	Resources Resources
}

// Error is what is wrong with a job file.
type Error struct {
	Line int // from 1; 0: the file as a whole
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// Errorf makes an *Error.
func Errorf(line int, format string, args ...any) *Error {
	return &Error{Line: line, Text: fmt.Sprintf(format, args...)}
}
