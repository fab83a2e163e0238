// Package traffic counts what a piece of work reads from chunk servers, and
// says how it wants it read. Both travel in the context, through whatever fetches
// on the work's behalf.
package traffic

import (
	"context"
	"sync/atomic"
)

// Meter counts bytes, digests included. All methods may be called
// concurrently, and on a nil Meter, which counts nothing.
type Meter struct{ local, remote atomic.Int64 }

// Add notes n bytes; remote: they came over the network, not from a file or a
// process of this host.
func (m *Meter) Add(n int, remote bool) {
	switch {
	case m == nil:
	case remote:
		m.remote.Add(int64(n))
	default:
		m.local.Add(int64(n))
	}
}

// Local is how many bytes were read on this host.
func (m *Meter) Local() uint64 {
	if m == nil {
		return 0
	}
	return uint64(m.local.Load())
}

// Remote is how many bytes came over the network.
func (m *Meter) Remote() uint64 {
	if m == nil {
		return 0
	}
	return uint64(m.remote.Load())
}

type key struct{}

// With returns a context whose reads m counts.
func With(ctx context.Context, m *Meter) context.Context { return context.WithValue(ctx, key{}, m) }

// Of returns the meter of a context, or nil.
func Of(ctx context.Context) *Meter {
	m, _ := ctx.Value(key{}).(*Meter)
	return m
}

// Carry returns to with the meter of from: for work that from asks for and that
// outlives it.
func Carry(to, from context.Context) context.Context {
	if m := Of(from); m != nil {
		return With(to, m)
	}
	return to
}

type patience struct{}

// Patiently returns a context whose reads wait long for the server that has the
// bytes before they fetch from others what they can be decoded from: for work
// that was carried to the bytes.
func Patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patience{}, true)
}

// Patient says whether ctx is one of Patiently.
func Patient(ctx context.Context) bool { return ctx.Value(patience{}) != nil }
