package chunkd

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// FuzzServe gives a store any request, with any bytes: it must refuse it or carry
// it out, and not panic, and what it holds stays readable.
func FuzzServe(f *testing.F) {
	cfg := testConfig(f.TempDir())
	s := openStore(f, cfg)
	ctx := context.Background()
	data := make([]byte, 3*block.LeafSize+5)
	id := shardID{7, 1}
	if _, err := s.Put(ctx, putRequest(id, data), data); err != nil {
		f.Fatal(err)
	}
	token := block.Capability(cfg.Key, 1, time.Now().Add(time.Hour))
	handlers := []struct {
		m wire.Method
		h transport.Handler
	}{{wire.MethodPutShard, s.servePut}, {wire.MethodGetShard, s.serveGet}, {wire.MethodOpenShard, s.serveOpen}, {wire.MethodSegmentFD, s.serveSegment}}
	add := func(n byte, m proto.Message, payload []byte) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(n, b, payload)
	}
	add(0, putRequest(shardID{8, 0}, []byte("hello")), []byte("hello"))
	add(0, putRequest(id, []byte("other")), []byte("other"))
	add(1, &wire.GetShard{Block: 7, Index: 1, Len: 1 << 30, Leaves: true}, nil)
	add(1, &wire.GetShard{Block: 7, Index: 1, Off: 3 * block.LeafSize, Len: 5, Tail: 3}, nil)
	add(1, &wire.GetShard{Block: 7, Index: 1, Off: 1<<32 - 1, Len: 1<<32 - 1}, nil)
	add(2, &wire.OpenShard{Block: 7, Index: 1}, nil)
	add(3, &wire.SegmentFD{Segment: 1}, nil)
	f.Fuzz(func(t *testing.T, n byte, b, payload []byte) {
		c := handlers[int(n)%len(handlers)]
		m := wire.Shapes[c.m].Req()
		if proto.Unmarshal(b, m) != nil {
			return
		}
		if field := m.ProtoReflect().Descriptor().Fields().ByName("capability"); field != nil {
			m.ProtoReflect().Set(field, protoreflect.ValueOfBytes(token))
		}
		reply, err := c.h(ctx, &transport.Request{Method: c.m, Msg: m, Payload: payload, Peer: transport.Peer{Role: "client"}})
		if err == nil && reply.Release != nil {
			reply.Release()
		}
		got := make([]byte, len(data))
		if _, err := s.ReadAt(ctx, id.block, id.index, got, 0); err != nil {
			t.Fatalf("%v: %v", m, err)
		}
	})
}

// Another chunk server reads without a capability, and stores nothing.
func TestChunkServersStoreNothingElsewhere(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	q := putRequest(shardID{7, 1}, []byte("hello"))
	for _, role := range []string{"chunkd", "agent", "edge", "client"} {
		_, err := s.servePut(t.Context(), &transport.Request{Method: wire.MethodPutShard, Msg: q, Payload: []byte("hello"), Peer: transport.Peer{Role: role, Name: "x"}})
		if wire.CodeOf(err) != wire.Forbidden {
			t.Errorf("%s stores without a capability: %v", role, err)
		}
	}
}
