package chunkd

import (
	"slices"
	"sync"
	"time"
)

// latency keeps the last durations of reads over the network, small and large
// ones apart, and says when one is late.
type latency struct {
	mu      sync.Mutex // guards what follows
	classes [2]window
}

type window struct {
	ring [128]time.Duration
	n    int           // durations seen
	late time.Duration // computed every few
}

const (
	minHedge   = 50 * time.Millisecond
	largeRead  = 256 << 10
	recompute  = 16
	percentile = 95
)

func (l *latency) class(size int) *window {
	if size >= largeRead {
		return &l.classes[1]
	}
	return &l.classes[0]
}

func (l *latency) add(size int, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.class(size)
	w.ring[w.n%len(w.ring)] = d
	w.n++
	if w.n%recompute == 0 {
		seen := slices.Clone(w.ring[:min(w.n, len(w.ring))])
		slices.Sort(seen)
		w.late = seen[(len(seen)-1)*percentile/100]
	}
}

// hedgeAfter is how long a read of size bytes may take before it is also tried
// by decoding: the 95th percentile, at least 50 ms.
func (l *latency) hedgeAfter(size int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(minHedge, l.class(size).late)
}

// recent remembers what happened not long ago. It holds a bounded number.
type recent[K comparable] struct {
	keep time.Duration
	max  int

	mu sync.Mutex // guards at
	at map[K]time.Time
}

func newRecent[K comparable](keep time.Duration, max int) *recent[K] {
	return &recent[K]{keep: keep, max: max, at: map[K]time.Time{}}
}

// first notes k and says whether it had not happened for a while.
func (r *recent[K]) first(k K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if t, ok := r.at[k]; ok && now.Sub(t) < r.keep {
		return false
	}
	if len(r.at) >= r.max {
		clear(r.at)
	}
	r.at[k] = now
	return true
}
