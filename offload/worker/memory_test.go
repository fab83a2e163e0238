package worker

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// TestMemory: whatever was written to a memory, restore puts back what keep
// remembered.
func TestMemory(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 2*rewriteMost*osPage + pageSize
	for _, c := range []struct {
		name    string
		pagemap bool
	}{{"page by page", true}, {"without a pagemap", false}} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{}
			linear := m.Allocate(0, 2*size)
			defer linear.Free()
			b := linear.Reallocate(size)
			for range 200 { // the rest is zero
				b[r.IntN(size)] = byte(r.Uint32())
			}
			want := bytes.Clone(b)
			if err := m.keep(); err != nil {
				t.Fatal(err)
			}
			if m.linear.pagemap == nil {
				t.Skip("this system has no /proc/self/pagemap")
			}
			if !c.pagemap {
				m.linear.pagemap.Close()
				m.linear.pagemap = nil
			}
			for round := range 50 {
				writes := 1 << r.IntN(13) // more than rewriteMost, too
				for range writes {
					i := r.IntN(size)
					b[i], b[r.IntN(size)] = ^b[i], byte(r.Uint32())
				}
				if err := m.restore(); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, want) {
					t.Fatalf("round %d: after %d writes the memory is not what it was", round, writes)
				}
			}
			linear.Reallocate(size + pageSize)
			if m.restore() != errGrown {
				t.Error("a memory that has grown was put back")
			}
		})
	}
}

// BenchmarkRestore is what it costs to put back 70 pages of a memory of 6 MiB.
func BenchmarkRestore(b *testing.B) {
	const size = 6 << 20
	m := &memory{}
	linear := m.Allocate(0, size)
	defer linear.Free()
	p := linear.Reallocate(size)
	p[0] = 1
	if err := m.keep(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i := range 70 {
			p[i*20*osPage] = 2
		}
		if err := m.restore(); err != nil {
			b.Fatal(err)
		}
	}
}
