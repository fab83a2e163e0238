// Package traffic counts what a piece of work reads from chunk servers, and
// says how it wants it read. Both travel in the context, through whatever fetches
// on the work's behalf.
package traffic

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Meter counts bytes, digests included. All methods may be called
// concurrently, and on a nil Meter, which counts nothing.
type Meter struct {
	local, remote atomic.Int64

	mu    sync.Mutex
	links map[uint32]Link // guarded by mu: by chunk server
}

// Link is what came from one chunk server over the network: the bytes, and the time
// of the requests for them, those at the same time each for itself.
type Link struct {
	Bytes int64
	Took  time.Duration
}

const (
	maxLinks     = 64       // so many servers are told apart
	leastOfALink = 64 << 10 // bytes: smaller transfers say more of the delay than of the bandwidth
)

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

// Transfer notes how long a request took that brought n bytes over the network. The
// bytes themselves are Add's. Small ones do not count.
func (m *Meter) Transfer(server uint32, n int, took time.Duration) {
	if m == nil || n < leastOfALink || took <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l, known := m.links[server]
	if !known && len(m.links) == maxLinks {
		return
	}
	if m.links == nil {
		m.links = map[uint32]Link{}
	}
	m.links[server] = Link{l.Bytes + int64(n), l.Took + took}
}

// Links are the transfers so far, by server. The map is the caller's.
func (m *Meter) Links() map[uint32]Link {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.links)
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
