//go:build linux && (amd64 || arm64)

package clworker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quernfs/offload/opencl"
)

// machine is the device of this process. One goroutine uses it.
type machine struct {
	ctx   *opencl.Context
	cache string // "": programs are not kept on disk
	ready []*compiled
}

// compiled is one program in memory; the most recently used is last.
type compiled struct {
	key     string
	program *opencl.Program
}

// keep is how many programs stay in memory.
const keep = 8

// options of every build.
const options = "-cl-std=CL1.2"

func newMachine(d *opencl.Device, cache string) (*machine, error) {
	ctx, err := d.Open()
	if err != nil {
		return nil, fmt.Errorf("device %s (%s): %w", d.ID, d.Name, err)
	}
	m := &machine{ctx: ctx}
	if cache != "" {
		m.cache = filepath.Join(cache, "programs")
		if err := os.MkdirAll(m.cache, 0o700); err != nil {
			return nil, errors.Join(err, ctx.Close())
		}
	}
	return m, nil
}

func (m *machine) close() {
	for _, c := range m.ready {
		_ = c.program.Close()
	}
	m.ready = nil
	_ = m.ctx.Close()
}

// program returns source built for the device: from memory, from disk, or by
// the compiler.
func (m *machine) program(source []byte) (*opencl.Program, error) {
	key := m.key(source)
	for i, c := range m.ready {
		if c.key == key {
			m.ready = append(append(m.ready[:i:i], m.ready[i+1:]...), c)
			return c.program, nil
		}
	}
	p := m.load(key)
	if p == nil {
		var err error
		if p, err = m.ctx.Build(string(source), options); err != nil {
			return nil, err
		}
		m.store(key, p)
	}
	m.ready = append(m.ready, &compiled{key, p})
	if len(m.ready) > keep {
		_ = m.ready[0].program.Close()
		m.ready = m.ready[1:]
	}
	return p, nil
}

func (m *machine) key(source []byte) string {
	d := m.ctx.Device()
	h := sha256.New()
	for _, s := range []string{d.Platform, d.Vendor, d.Name, d.Version, d.Driver, options, string(source)} {
		fmt.Fprintf(h, "%d %s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// load returns the program kept under key, or nil.
func (m *machine) load(key string) *opencl.Program {
	if m.cache == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(m.cache, key))
	if err != nil {
		return nil
	}
	binary, ok := unseal(data)
	if !ok {
		return nil
	}
	p, err := m.ctx.Load(binary, options)
	if err != nil {
		return nil
	}
	return p
}

// store keeps p. That it could not is no fault of the task.
func (m *machine) store(key string, p *opencl.Program) {
	if m.cache == "" {
		return
	}
	binary, err := p.Binary()
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(m.cache, ".new-*")
	if err != nil {
		return
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(seal(binary))
	if errors.Join(err, tmp.Close()) == nil {
		_ = os.Rename(tmp.Name(), filepath.Join(m.cache, key))
	}
}

// seal puts the digest before what is kept.
func seal(binary []byte) []byte {
	sum := sha256.Sum256(binary)
	return append(sum[:], binary...)
}

// unseal undoes seal; ok is false if data is not what was sealed.
func unseal(data []byte) (binary []byte, ok bool) {
	if len(data) <= sha256.Size {
		return nil, false
	}
	sum := sha256.Sum256(data[sha256.Size:])
	return data[sha256.Size:], string(sum[:]) == string(data[:sha256.Size])
}
