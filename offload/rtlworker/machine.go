//go:build linux && (amd64 || arm64)

package rtlworker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"quernfs/offload/jobfile"
	"quernfs/offload/recipe"
	"quernfs/offload/sign"
	"quernfs/offload/worker"
)

// machine is the simulated device of this process. One goroutine uses it.
type machine struct {
	keys  string // the file of trusted keys
	ready map[string]*library
	gaps  gaps
}

func newMachine(keys string) *machine { return &machine{keys: keys, ready: map[string]*library{}} }

// Sizes of what is fed at once, in bytes; a multiple of every width.
const (
	inChunk  = 256 << 10
	outChunk = 256 << 10
)

// idleCycles is how long a kernel may neither take nor give anything.
const idleCycles = 1 << 22

// run carries out one run: the function that worker.Serve calls.
func (m *machine) run(r *worker.Run, stdin io.Reader, stdout, stderr io.Writer) worker.Exit {
	before := worker.CPU()
	cycles, clock, err := m.do(r, stdin, stdout)
	exit := worker.Exit{CPU: worker.CPU() - before, Cycles: int64(cycles), PeakMemory: 2*inChunk + outChunk}
	if clock > 0 {
		exit.Device = int64(math.Round(float64(cycles) / clock * 1e9))
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		exit.Code = 1
	}
	return exit
}

func (m *machine) do(r *worker.Run, stdin io.Reader, stdout io.Writer) (cycles uint64, clock float64, err error) {
	k, err := jobfile.ParseKernel(r.Manifest)
	if err != nil {
		return 0, 0, fmt.Errorf("kernel.yaml: %w", err)
	}
	if k.RTL == nil {
		return 0, 0, errors.New("the kernel has no variant for rtl")
	}
	l, err := m.library(r, k.RTL)
	if err != nil || r.Prepare {
		return 0, 0, err
	}
	x, err := l.open()
	if err != nil {
		return 0, 0, err
	}
	defer x.close()
	values, err := recipe.Params(k.RTL.Params, r.Env)
	if err != nil {
		return 0, 0, err
	}
	for i, p := range k.RTL.Params {
		if err := x.set(i, binary.LittleEndian.Uint32(values[p.Name])); err != nil {
			return 0, 0, err
		}
	}
	cycles, err = pass(x, stdin, stdout, int64(jobfile.TypeSize[k.RTL.Type]), m.gaps)
	return cycles, k.RTL.Clock, err
}

// library returns the model of a run, once it is known who vouches for it.
func (m *machine) library(r *worker.Run, rtl *jobfile.RTL) (*library, error) {
	data, err := worker.ReadModule(r.Module, r.Digest)
	if err != nil {
		return nil, err
	}
	if _, err := sign.Check(m.keys, rtl.File, data, r.Manifest, r.Signature); err != nil {
		return nil, err
	}
	l := m.ready[string(r.Digest)]
	if l == nil {
		if l, err = open(data); err != nil {
			return nil, fmt.Errorf("%s: %w", rtl.File, err)
		}
		m.ready[string(r.Digest)] = l
	}
	var names []string
	for _, p := range rtl.Params {
		names = append(names, p.Name)
	}
	if l.width != rtl.Width || !slices.Equal(names, l.params) {
		return nil, fmt.Errorf("%s was built for a beat of %d bytes and the params %q, kernel.yaml has %d and %q: build it again", rtl.File, l.width, l.params, rtl.Width, names)
	}
	return l, nil
}

// pass sends the input, a whole number of elements of size bytes, through a
// model, and returns the cycles that it took. Of the input one piece is read
// ahead: the last beat has to say that it is the last.
func pass(x *model, in io.Reader, w io.Writer, size int64, g gaps) (cycles uint64, err error) {
	out := make([]byte, outChunk)
	next, spare := make([]byte, inChunk), make([]byte, inChunk)
	total := int64(0)
	read := func(p []byte) ([]byte, error) {
		n, err := io.ReadFull(in, p)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
		total += int64(n)
		return p[:n], err
	}
	now, err := read(next)
	if err != nil {
		return 0, err
	}
	for last := false; ; {
		var ahead []byte
		if last = len(now) < inChunk; !last {
			if ahead, err = read(spare); err != nil {
				return cycles, err
			}
			last = len(ahead) == 0
		}
		if last && total%size != 0 {
			return cycles, fmt.Errorf("the input is not a whole number of elements of %d bytes: %d are left over", size, total%size)
		}
		ended, n, err := feed(x, now, last, out, w, g)
		cycles += n
		if err != nil || ended {
			return cycles, err
		}
		now, spare = ahead, now[:cap(now)]
	}
}

// feed has a model take one piece; of the last, also give all that it will.
func feed(x *model, piece []byte, last bool, out []byte, w io.Writer, g gaps) (ended bool, cycles uint64, err error) {
	for {
		code, s := x.step(piece, last, out, idleCycles, g)
		cycles += s.ran
		if _, err := w.Write(out[:s.outUsed]); err != nil {
			return false, cycles, err
		}
		piece = piece[s.inUsed:]
		switch {
		case code == done && last && len(piece) == 0:
			return true, cycles, nil
		case code == done:
			return false, cycles, errors.New("the kernel has ended its output, with TLAST, before the end of the input")
		case code == unsteady:
			return false, cycles, fmt.Errorf("the kernel breaks the rules of AXI4-Stream in cycle %d of this piece: it has given up or changed a beat that was not taken", cycles)
		case code == finished:
			return false, cycles, errors.New("the model has stopped by itself ($finish or $stop)")
		case code != goesOn:
			return false, cycles, fmt.Errorf("the model has refused a step: %d", code)
		case !last && len(piece) == 0:
			return false, cycles, nil
		case s.inUsed == 0 && s.outUsed == 0 && s.ran > 0:
			if len(piece) > 0 {
				return false, cycles, fmt.Errorf("the kernel has taken nothing for %d cycles: its TREADY stays low", s.ran)
			}
			return false, cycles, fmt.Errorf("the kernel has given nothing for %d cycles: there was no beat with TLAST", s.ran)
		}
	}
}
