package chunkd

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/traffic"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// slot is where bytes are wanted. Several may try to fill it at once (the
// server that holds them, a decoder): the first wins, and after close nobody
// touches dst any more.
type slot struct {
	dst []byte

	mu   sync.Mutex // held while dst is written
	done bool
}

// fill runs f to fill dst, unless that was done already.
func (s *slot) fill(f func(dst []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	if err := f(s.dst); err != nil {
		return err
	}
	s.done = true
	return nil
}

// full says whether dst is filled; then it does not change any more.
func (s *slot) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// close keeps late comers away from dst.
func (s *slot) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
}

// fetch fills into with bytes [off, off+len(dst)) of shard i of b from the
// server that holds it, verified. It takes at most Timeout.
//
// Codes: Unavailable, Timeout (no answer), NotFound, Corrupt (a bad answer,
// reported to OnBad), Interrupted.
func (c *Client) fetch(ctx context.Context, b *wire.Block, i, off int, into *slot) error {
	id, server := shardID{b.GetId(), uint32(i)}, b.GetShards()[i].GetServer()
	if server == 0 {
		return wire.Errorf(wire.Unavailable, "read", id.String(), "no server holds it")
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, token, err := c.conn(ctx, server)
	if err != nil {
		return c.settle(server, err)
	}
	f := fetcher{c: c, ctx: ctx, conn: conn, token: token, b: b, id: id, server: server, root: b.GetShards()[i].GetRoot()}
	c.near(server, conn.Kind())
	if conn.Kind() != transport.QUIC {
		if err = f.direct(off, into); err == nil || ctx.Err() != nil {
			return c.settle(server, err)
		}
		// Whatever it was (the shard has moved, files cannot be passed, …), the
		// server itself knows best.
		c.cache.forgetPlace(id)
	}
	start := time.Now()
	if err = c.settle(server, f.call(off, into)); err == nil && conn.Kind() == transport.QUIC {
		c.speed.add(len(into.dst), time.Since(start))
	}
	switch wire.CodeOf(err) {
	case wire.Corrupt:
		c.report(id, server, true)
	case wire.NotFound:
		c.report(id, server, false)
	}
	return err
}

// fetcher is one attempt to read from one shard at one server.
type fetcher struct {
	c      *Client
	ctx    context.Context // of this attempt
	conn   transport.Conn
	token  []byte
	b      *wire.Block
	id     shardID
	server uint32
	root   []byte
}

func (f *fetcher) length() int { return int(f.b.GetShardLength()) }

func (f *fetcher) corrupt(what string) error {
	return wire.Errorf(wire.Corrupt, "read", f.id.String()+" on "+serverName(f.server), "%s", what)
}

// trust checks the digests that a server sent against the root.
func (f *fetcher) trust(length uint32, leaves []byte) error {
	if int(length) != f.length() || !block.VerifyRoot(f.length(), leaves, f.root) {
		return f.corrupt("the digests do not match the block's record")
	}
	return nil
}

// tailMost is the most for which the end of a leaf is asked for instead of the
// leaf: what a record that crosses the border between two shards needs.
const tailMost = 8 << 10

// call asks the server for the leaves that hold the range.
func (f *fetcher) call(off int, into *slot) error {
	lo, hi := block.Align(f.length(), off, len(into.dst))
	if hi-lo <= block.LeafSize && hi-off <= tailMost && block.TailStart(hi-lo, hi-off) > 0 {
		return f.callTail(off, lo, hi, into)
	}
	info, known := f.c.cache.get(f.id)
	buf := getBuffer(hi - lo)
	defer putBuffer(buf)
	began := time.Now()
	resp, n, err := f.conn.CallBulk(f.ctx, wire.MethodGetShard, &wire.GetShard{
		Block: f.id.block, Index: f.id.index, Off: uint32(lo), Len: uint32(hi - lo), Leaves: !known, Capability: f.token,
	}, nil, *buf)
	if err != nil {
		return err
	}
	r, ok := resp.(*wire.GetShardReply)
	if !ok {
		return wire.Errorf(wire.Internal, "read", f.id.String(), "the reply is not one of this call")
	}
	f.meter(n+len(r.GetLeaves()), time.Since(began))
	if !known {
		if err := f.trust(r.GetLength(), r.GetLeaves()); err != nil {
			return err
		}
		info = shardInfo{leaves: r.GetLeaves()}
		f.c.cache.put(f.id, info)
	}
	if n != hi-lo || !block.VerifyRange(info.leaves, lo, *buf) {
		return f.corrupt("the bytes do not match their digests")
	}
	return into.fill(func(dst []byte) error {
		copy(dst, (*buf)[off-lo:])
		return nil
	})
}

// callTail asks for the end of the leaf [lo, hi), from off on.
func (f *fetcher) callTail(off, lo, hi int, into *slot) error {
	info, known := f.c.cache.get(f.id)
	start := lo + block.TailStart(hi-lo, hi-off)
	buf := getBuffer(hi - start)
	defer putBuffer(buf)
	resp, n, err := f.conn.CallBulk(f.ctx, wire.MethodGetShard, &wire.GetShard{
		Block: f.id.block, Index: f.id.index, Off: uint32(lo), Len: uint32(hi - lo), Tail: uint32(hi - off), Leaves: !known, Capability: f.token,
	}, nil, *buf)
	if err != nil {
		return err
	}
	r, ok := resp.(*wire.GetShardReply)
	if !ok {
		return wire.Errorf(wire.Internal, "read", f.id.String(), "the reply is not one of this call")
	}
	f.meter(n+len(r.GetLeaves())+len(r.GetState()), 0)
	if !known {
		if err := f.trust(r.GetLength(), r.GetLeaves()); err != nil {
			return err
		}
		info = shardInfo{leaves: r.GetLeaves()}
		f.c.cache.put(f.id, info)
	}
	if n != hi-start || !block.VerifyTail(info.leaves, lo/block.LeafSize, hi-lo, r.GetState(), *buf) {
		return f.corrupt("the bytes do not match their digests")
	}
	return into.fill(func(dst []byte) error {
		copy(dst, (*buf)[off-start:])
		return nil
	})
}

// meter counts what the server sent, in so much time.
func (f *fetcher) meter(n int, took time.Duration) {
	m, remote := traffic.Of(f.ctx), f.conn.Kind() == transport.QUIC
	m.Add(n, remote)
	if remote {
		m.Transfer(f.server, n, took)
	}
}

// meterFile counts what is read from a server's file to verify a range.
func meterFile(ctx context.Context, b *wire.Block, off, n int) {
	if m := traffic.Of(ctx); m != nil {
		lo, hi := block.Align(int(b.GetShardLength()), off, n)
		m.Add(hi-lo, false)
	}
}

// direct reads the shard from the server's segment file.
func (f *fetcher) direct(off int, into *slot) error {
	info, ok := f.c.cache.get(f.id)
	if !ok || info.server != f.server {
		r, err := transport.Call[*wire.OpenShardReply](f.ctx, f.conn, wire.MethodOpenShard,
			&wire.OpenShard{Block: f.id.block, Index: f.id.index, Capability: f.token})
		if err != nil {
			return err
		}
		if err := f.trust(r.GetLength(), r.GetLeaves()); err != nil {
			return err
		}
		info = shardInfo{leaves: r.GetLeaves(), server: f.server, segment: r.GetSegment(), off: int64(r.GetOff())}
		f.c.cache.put(f.id, info)
	}
	key := segmentOf{f.server, info.segment}
	file := f.c.files.get(key)
	if file == nil {
		_, passed, err := f.conn.CallFile(f.ctx, wire.MethodSegmentFD, &wire.SegmentFD{Segment: info.segment, Capability: f.token})
		if err != nil {
			return err
		}
		file = f.c.files.put(key, passed)
	}
	err := into.fill(func(dst []byte) error {
		return readVerified(file, info.off, f.length(), info.leaves, off, dst)
	})
	if err != nil {
		f.c.files.drop(key)
	} else {
		meterFile(f.ctx, f.b, off, len(into.dst))
	}
	return err
}

// known reads a range by itself if everything needed is at hand: no call, no
// goroutine. It says whether it did.
func (c *Client) known(ctx context.Context, b *wire.Block, i, off int, into *slot) bool {
	id, server := shardID{b.GetId(), uint32(i)}, b.GetShards()[i].GetServer()
	info, ok := c.cache.get(id)
	if !ok || server == 0 || info.server != server {
		return false
	}
	file := c.files.get(segmentOf{server, info.segment})
	if file == nil {
		return false
	}
	err := into.fill(func(dst []byte) error {
		return readVerified(file, info.off, int(b.GetShardLength()), info.leaves, off, dst)
	})
	if err == nil {
		meterFile(ctx, b, off, len(into.dst))
	}
	return err == nil
}

var errMismatch = errors.New("the bytes do not match their digests")

// readVerified fills dst with the bytes from off on of the shard of length
// bytes that starts at base of r. Runs of whole leaves are read into dst itself,
// a leaf of which only a part is wanted by way of a buffer.
func readVerified(r io.ReaderAt, base int64, length int, leaves []byte, off int, dst []byte) error {
	for len(dst) > 0 {
		lo, hi := block.Align(length, off, 1)
		n := len(dst) / block.LeafSize * block.LeafSize
		if off+len(dst) == length {
			n = len(dst)
		}
		if off == lo && n > 0 {
			if _, err := r.ReadAt(dst[:n], base+int64(off)); err != nil {
				return err
			}
			if !block.VerifyRange(leaves, off, dst[:n]) {
				return errMismatch
			}
		} else {
			buf := getBuffer(hi - lo)
			if _, err := r.ReadAt(*buf, base+int64(lo)); err != nil {
				putBuffer(buf)
				return err
			}
			if !block.VerifyRange(leaves, lo, *buf) {
				putBuffer(buf)
				return errMismatch
			}
			n = copy(dst, (*buf)[off-lo:])
			putBuffer(buf)
		}
		off, dst = off+n, dst[n:]
	}
	return nil
}
