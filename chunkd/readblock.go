package chunkd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/traffic"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// maxPiece cuts reads of replicated blocks, so that large ones are verified in
// parallel.
const maxPiece = 1 << 20

// patience is how long a reader that would rather wait waits for a server.
const patience = 5 * time.Second

// ReadBlock fills p with bytes [off, off+len(p)) of b, each leaf verified
// against the roots in b. A small read asks one server. A range whose server is
// down, slow (past the 95th percentile, at least 50 ms) or has bad bytes is
// decoded from the same range of k other shards. After an error p is undefined.
//
// With fewer than k shards to be had it fails with wire.Corrupt if enough
// servers answered and too many digests failed, else wire.Unavailable; that
// takes at most three times Timeout.
func (c *Client) ReadBlock(ctx context.Context, b *wire.Block, p []byte, off int) error {
	if err := checkBlock(b); err != nil {
		return err
	}
	if off < 0 || len(p) > int(b.GetLength()) || off > int(b.GetLength())-len(p) {
		return wire.Errorf(wire.Invalid, "read", blockName(b), "bytes %d to %d of %d", off, off+len(p), b.GetLength())
	}
	if len(p) == 0 {
		return nil
	}
	var pieces []block.Piece
	if b.GetK() == 1 {
		nearest := c.order(b, nil)[0]
		for at := 0; at < len(p); {
			// Cut where leaves end, so that none is read twice.
			end := min((off+at)/maxPiece*maxPiece+maxPiece-off, len(p))
			pieces = append(pieces, block.Piece{Shard: nearest, Off: off + at, Len: end - at, At: at})
			at = end
		}
	} else {
		pieces = block.Pieces(int(b.GetShardLength()), off, len(p))
	}
	return c.readPieces(ctx, b, pieces, p)
}

// readShard fills p with the whole shard i of b, from its holder (unless that is
// not, the server which wants to rebuild it) or decoded.
func (c *Client) readShard(ctx context.Context, b *wire.Block, i int, not uint32, p []byte) error {
	if b.GetShards()[i].GetServer() == not {
		own := &wire.Block{Id: b.Id, K: b.K, M: b.M, Length: b.Length, ShardLength: b.ShardLength, Shards: slices.Clone(b.Shards)}
		own.Shards[i] = &wire.Shard{Root: b.Shards[i].GetRoot()}
		b = own
	}
	return c.readPieces(ctx, b, []block.Piece{{Shard: i, Len: len(p)}}, p)
}

// checkBlock makes sure that b makes sense: it decides about indices and sizes.
func checkBlock(b *wire.Block) error {
	p := block.Policy{K: int(b.GetK()), M: int(b.GetM())}
	n := int(b.GetLength())
	ok := p.Validate() == nil && n >= 1 && n <= block.MaxBlockSize && len(b.GetShards()) == p.Shards() &&
		int(b.GetShardLength()) == block.ShardLength(n, p.K)
	for _, s := range b.GetShards() {
		ok = ok && len(s.GetRoot()) == block.HashSize
	}
	if !ok {
		return wire.Errorf(wire.Invalid, "read", blockName(b), "the block's record makes no sense")
	}
	return nil
}

func blockName(b *wire.Block) string { return fmt.Sprintf("block %d", b.GetId()) }

// near remembers how a server is reached.
func (c *Client) near(server uint32, kind transport.Kind) {
	c.mu.RLock()
	same := c.kinds[server] == kind
	c.mu.RUnlock()
	if same {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[server] = kind
}

// order returns the shards of b outside of skip, those first that are nearest
// and expected to answer.
func (c *Client) order(b *wire.Block, skip map[int]bool) []int {
	n := len(b.GetShards())
	rank := make([]int, n)
	var out []int
	for j := range n {
		// Different blocks start with different shards, to spread the load.
		i := (int(b.GetId()%uint64(n)) + j) % n
		if skip[i] {
			continue
		}
		server := b.Shards[i].GetServer()
		c.mu.RLock()
		kind := c.kinds[server]
		c.mu.RUnlock()
		if kind == 0 {
			kind = transport.Unix // not tried yet: before the far ones
		}
		rank[i] = int(kind)
		switch {
		case server == 0:
			rank[i] = 1 << 10
		case !c.healthy(server):
			rank[i] += 1 << 5
		}
		out = append(out, i)
	}
	slices.SortStableFunc(out, func(i, j int) int { return rank[i] - rank[j] })
	return out
}

// blockRead is one ReadBlock under way.
type blockRead struct {
	c      *Client
	b      *wire.Block
	pieces []block.Piece
	slots  []*slot // one a piece

	mu   sync.Mutex
	errs map[int]error // what each shard answered last, if that was an error
}

// readPieces fills p: first every piece from the shard that holds it, all at
// once; then what failed or is late by decoding.
func (c *Client) readPieces(ctx context.Context, b *wire.Block, pieces []block.Piece, p []byte) error {
	r := &blockRead{c: c, b: b, pieces: pieces, errs: map[int]error{}}
	for _, pc := range pieces {
		r.slots = append(r.slots, &slot{dst: p[pc.At : pc.At+pc.Len : pc.At+pc.Len]})
	}
	if len(pieces) == 1 && c.known(ctx, b, pieces[0].Shard, pieces[0].Off, r.slots[0]) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*c.cfg.Timeout)
	// p is the caller's again when we return: those who come late find their
	// slots closed. They end soon, since their context has.
	defer func() {
		cancel()
		for _, s := range r.slots {
			s.close()
		}
	}()
	results := make(chan struct{}, len(pieces))
	pending := 0
	fetch := func(i int) {
		pending++
		go func() {
			pc := pieces[i]
			if !c.known(ctx, b, pc.Shard, pc.Off, r.slots[i]) {
				r.note(pc.Shard, c.fetch(ctx, b, pc.Shard, pc.Off, r.slots[i]))
			}
			results <- struct{}{}
		}()
	}
	var doubtful []int // on servers that are thought to be down: the last resort
	for i, pc := range pieces {
		if c.healthy(b.Shards[pc.Shard].GetServer()) {
			fetch(i)
		} else {
			doubtful = append(doubtful, i)
		}
	}
	hedge := c.speed.hedgeAfter(len(r.slots[0].dst))
	if traffic.Patient(ctx) {
		hedge = max(hedge, patience)
	}
	late := time.NewTimer(hedge)
	defer late.Stop()
wait:
	for pending > 0 {
		select {
		case <-results:
			pending--
		case <-late.C:
			break wait
		case <-ctx.Done():
			return r.failure(ctx)
		}
	}
	for {
		missing := r.missing()
		if len(missing) == 0 || r.decode(ctx, missing, results, &pending) {
			return nil
		}
		for _, i := range doubtful {
			fetch(i)
		}
		doubtful = nil
		if len(r.missing()) < len(missing) {
			continue // some came meanwhile: less to decode, from more
		}
		if pending == 0 || ctx.Err() != nil {
			return r.failure(ctx)
		}
		select { // what is late may yet come, and help to decode the rest
		case <-results:
			pending--
		case <-ctx.Done():
		}
	}
}

// note keeps what shard i answered.
func (r *blockRead) note(i int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.errs, i)
	} else if wire.CodeOf(err) != wire.Interrupted {
		r.errs[i] = err
	}
}

// missing returns the pieces that are not filled.
func (r *blockRead) missing() []int {
	var out []int
	for i, s := range r.slots {
		if !s.full() {
			out = append(out, i)
		}
	}
	return out
}

// failure says why the read fails.
func (r *blockRead) failure(ctx context.Context) error {
	if err := ctx.Err(); err == context.Canceled {
		return &wire.Error{Code: wire.Interrupted, Op: "read", Object: blockName(r.b), Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	answered, code := len(r.b.GetShards()), wire.Unavailable
	var first, bad error
	for i := range r.b.GetShards() {
		switch err := r.errs[i]; wire.CodeOf(err) {
		case wire.OK:
		case wire.Corrupt, wire.NotFound:
			bad = err
		default:
			answered--
			if first == nil {
				first = err
			}
		}
	}
	if first == nil || (bad != nil && answered >= int(r.b.GetK())) {
		first = bad
	}
	if bad != nil && answered >= int(r.b.GetK()) {
		code = wire.Corrupt
	}
	if first == nil {
		first = ctx.Err()
	}
	return wire.Errorf(code, "read", blockName(r.b), "fewer than %d of its shards can be had: %w", r.b.GetK(), first)
}
