//go:build linux && (amd64 || arm64)

package rtlworker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// version of rtl/harness/quern_rtl.h, and how a step ends.
const (
	version = 1

	goesOn   = 0
	done     = 1
	unsteady = 2
	finished = 3
)

// library is a model that was opened. It stays open: code with threads and
// destructors of its own does not like to be unloaded.
type library struct {
	fn     map[string]uintptr
	width  int      // bytes of a beat
	params []string // names
}

var functions = []string{"version", "width", "params", "param", "open", "set", "step", "close"}

// open opens the shared object that data is, from memory that cannot change.
func open(data []byte) (*library, error) {
	fd, err := unix.MemfdCreate("quern-model", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memory for a model: %w", err)
	}
	file := os.NewFile(uintptr(fd), "model")
	_, err = file.Write(data)
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("memory for a model: %w", err)
	}
	h, err := purego.Dlopen(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("it is no shared object that this host can open: %w", err)
	}
	opened.Store(h, file)
	l := &library{fn: map[string]uintptr{}}
	return l, l.load(h)
}

// opened are the files of all libraries. They stay open, because the loader knows
// a library by the name of its file: no other may ever be given that.
var opened sync.Map

func (l *library) load(h uintptr) (err error) {
	for _, f := range functions {
		if l.fn[f], err = purego.Dlsym(h, "quern_rtl_"+f); err != nil {
			return fmt.Errorf("it is no model of a kernel: %w", err)
		}
	}
	if v := uint32(l.call("version")); v != version {
		return fmt.Errorf("it is a model of version %d, and this is quern for version %d: build it again", v, version)
	}
	l.width = int(uint32(l.call("width")))
	n := uint32(l.call("params"))
	if l.width < 1 || l.width > 64 || n > 64 {
		return fmt.Errorf("it has beats of %d bytes and %d parameters", l.width, n)
	}
	for i := range n {
		name := text(l.call("param", uintptr(i)))
		if name == "" {
			return errors.New("it has a parameter without a name")
		}
		l.params = append(l.params, name)
	}
	return nil
}

// text copies a string of C, of at most 64 bytes.
func text(p uintptr) string {
	if p == 0 {
		return ""
	}
	var b []byte
	for i := uintptr(0); i < 64; i++ {
		// p is memory of the library, which Go does not move.
		c := *(*byte)(unsafe.Add(*(*unsafe.Pointer)(unsafe.Pointer(&p)), i))
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	return string(b)
}

//go:uintptrescapes
func (l *library) call(f string, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(l.fn[f], args...)
	return r
}

// model is one instance, for one stream.
type model struct {
	lib *library
	p   uintptr
}

func (l *library) open() (*model, error) {
	p := l.call("open")
	if p == 0 {
		return nil, errors.New("out of memory: the model cannot be made")
	}
	return &model{l, p}, nil
}

func (m *model) close() { m.lib.call("close", m.p) }

func (m *model) set(param int, value uint32) error {
	if r := int32(m.lib.call("set", m.p, uintptr(param), uintptr(value))); r != 0 {
		return fmt.Errorf("the model does not take parameter %d", param)
	}
	return nil
}

// step is struct quern_rtl_step.
type step struct {
	in      unsafe.Pointer
	inLen   uint64
	out     unsafe.Pointer
	outLen  uint64
	cycles  uint64
	last    uint32
	stall   uint32
	seed    uint64
	inUsed  uint64
	outUsed uint64
	ran     uint64
}

// gaps are the cycles, of 256, in which the harness holds TVALID and TREADY low.
type gaps struct {
	stall uint32
	seed  uint64
}

// step feeds in, and takes what comes out into out, for at most cycles.
func (m *model) step(in []byte, last bool, out []byte, cycles uint64, g gaps) (code int, s *step) {
	s = &step{inLen: uint64(len(in)), outLen: uint64(len(out)), cycles: cycles, stall: g.stall, seed: g.seed}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(in) > 0 {
		s.in = unsafe.Pointer(&in[0])
		pin.Pin(&in[0])
	}
	s.out = unsafe.Pointer(&out[0])
	pin.Pin(&out[0])
	pin.Pin(s)
	if last {
		s.last = 1
	}
	return int(int32(m.lib.call("step", m.p, uintptr(unsafe.Pointer(s))))), s
}
