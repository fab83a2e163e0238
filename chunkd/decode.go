package chunkd

import (
	"context"
	"errors"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// span is a range of whole leaves, the same in each shard.
type span struct{ lo, hi int }

// decode fills the missing pieces by decoding, and says whether all are filled.
// It stops early when the servers' own answers, counted by results, fill them.
func (r *blockRead) decode(ctx context.Context, missing []int, results <-chan struct{}, pending *int) bool {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, group := range r.groups(missing) {
			if !r.decodeGroup(ctx, group) {
				return
			}
		}
	}()
	// The decoder is always waited for: it ends when its context does.
	defer func() { cancel(); <-done }()
	for {
		select {
		case <-done:
			return len(r.missing()) == 0
		case <-results:
			*pending--
			if len(r.missing()) == 0 {
				return true
			}
		}
	}
}

// groups puts pieces together whose ranges overlap: they are decoded from the
// same bytes of the others.
func (r *blockRead) groups(missing []int) [][]int {
	all := r.span(missing)
	sum := 0
	for _, i := range missing {
		s := r.span([]int{i})
		sum += s.hi - s.lo
	}
	if all.hi-all.lo <= sum && r.distinct(missing) {
		return [][]int{missing}
	}
	var out [][]int
	for _, i := range missing {
		out = append(out, []int{i})
	}
	return out
}

// distinct says whether the pieces are of different shards.
func (r *blockRead) distinct(missing []int) bool {
	seen := map[int]bool{}
	for _, i := range missing {
		if seen[r.pieces[i].Shard] {
			return false
		}
		seen[r.pieces[i].Shard] = true
	}
	return true
}

// span is the smallest range of leaves that holds the pieces.
func (r *blockRead) span(pieces []int) span {
	s := span{lo: int(r.b.GetShardLength())}
	for _, i := range pieces {
		lo, hi := block.Align(int(r.b.GetShardLength()), r.pieces[i].Off, r.pieces[i].Len)
		s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
	}
	return s
}

// decodeGroup fills the pieces of group, which are of different shards. If
// the whole range cannot be decoded, since too many shards have damage somewhere
// in it, it goes leaf by leaf: there, each may have k good ones.
func (r *blockRead) decodeGroup(ctx context.Context, group []int) bool {
	s := r.span(group)
	want := map[int]bool{}
	for _, i := range group {
		want[r.pieces[i].Shard] = true
	}
	put := func(s span, shards [][]byte) {
		for _, i := range group {
			pc := r.pieces[i]
			if pc.Off >= s.lo && pc.Off+pc.Len <= s.hi {
				_ = r.slots[i].fill(func(dst []byte) error {
					copy(dst, shards[pc.Shard][pc.Off-s.lo:])
					return nil
				})
			}
		}
	}
	err := r.decodeSpan(ctx, s, want, want, put)
	if err == nil {
		return true
	}
	if s.hi-s.lo <= block.LeafSize || !r.damaged() || ctx.Err() != nil {
		return false
	}
	whole := make([][]byte, len(r.b.GetShards()))
	for i := range want {
		buf := getBuffer(s.hi - s.lo)
		defer putBuffer(buf)
		whole[i] = *buf
	}
	for lo := s.lo; lo < s.hi; lo += block.LeafSize {
		leaf := span{lo, min(lo+block.LeafSize, s.hi)}
		err := r.decodeSpan(ctx, leaf, want, nil, func(leaf span, shards [][]byte) {
			for i := range want {
				copy(whole[i][leaf.lo-s.lo:], shards[i])
			}
		})
		if err != nil {
			return false
		}
	}
	put(s, whole)
	return true
}

// damaged says whether some shard failed its digest.
func (r *blockRead) damaged() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.errs {
		if errors.Is(err, wire.Corrupt) {
			return true
		}
	}
	return false
}

// source is a range of one shard on its way.
type source struct {
	shard int
	buf   *[]byte
	err   error
}

// decodeSpan gets range s of k shards outside of skip, decodes the shards in
// want and passes all that it has to use; the slices are its own.
func (r *blockRead) decodeSpan(ctx context.Context, s span, want, skip map[int]bool, use func(span, [][]byte)) error {
	codec, err := block.NewCodec(int(r.b.GetK()), int(r.b.GetM()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	shards := make([][]byte, len(r.b.GetShards()))
	have := r.reuse(s, skip, shards)
	var candidates []int
	for _, i := range r.c.order(r.b, skip) {
		if shards[i] == nil {
			candidates = append(candidates, i)
		}
	}
	arrived := make(chan source, len(candidates))
	running := 0
	start := func() {
		i := candidates[0]
		candidates = candidates[1:]
		running++
		go func() {
			buf := getBuffer(s.hi - s.lo)
			err := r.c.fetch(ctx, r.b, i, s.lo, &slot{dst: *buf})
			arrived <- source{i, buf, err}
		}()
	}
	// Every buffer comes back before we return: fetches end with their context.
	var bufs []*[]byte
	defer func() {
		cancel()
		for ; running > 0; running-- {
			bufs = append(bufs, (<-arrived).buf)
		}
		for _, b := range bufs {
			putBuffer(b)
		}
	}()
	patience := r.c.speed.hedgeAfter(s.hi - s.lo)
	late := time.NewTimer(patience)
	defer late.Stop()
	for have < codec.K() {
		for have+running < codec.K() && len(candidates) > 0 {
			start()
		}
		if have+running < codec.K() {
			return wire.Errorf(wire.Unavailable, "decode", blockName(r.b), "%d shards of %d", have, codec.K())
		}
		select {
		case a := <-arrived:
			running--
			bufs = append(bufs, a.buf)
			r.note(a.shard, a.err)
			if a.err == nil {
				shards[a.shard] = *a.buf
				have++
			}
		case <-late.C:
			if len(candidates) > 0 {
				start()
			}
			late.Reset(patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	flags := make([]bool, len(shards))
	need := false
	for i := range want {
		if shards[i] == nil {
			buf := getBuffer(s.hi - s.lo)
			bufs = append(bufs, buf)
			shards[i], flags[i], need = (*buf)[:0], true, true
		}
	}
	if need {
		if err := codec.ReconstructSome(shards, flags); err != nil {
			return err
		}
	}
	use(s, shards)
	return nil
}

// reuse takes what this read has in its slots already; it returns how many
// shards that are.
func (r *blockRead) reuse(s span, skip map[int]bool, shards [][]byte) int {
	n := 0
	for i, pc := range r.pieces {
		if n < int(r.b.GetK()) && !skip[pc.Shard] && shards[pc.Shard] == nil && pc.Off <= s.lo && pc.Off+pc.Len >= s.hi && r.slots[i].full() {
			shards[pc.Shard] = r.slots[i].dst[s.lo-pc.Off : s.hi-pc.Off]
			n++
		}
	}
	return n
}
