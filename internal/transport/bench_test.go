package transport

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"quernfs/internal/wire"
)

func benchEach(b *testing.B, f func(b *testing.B, c Conn)) {
	for _, k := range []Kind{InProcess, Unix, QUIC} {
		b.Run(k.String(), func(b *testing.B) {
			m := NewMux()
			HandleCall(m, wire.MethodQuery, nil, func(_ context.Context, _ Peer, q *wire.Query) (*wire.Answer, error) {
				return &wire.Answer{Index: q.Session}, nil
			})
			data := pattern(1, 1<<20)
			m.Handle(wire.MethodPutShard, nil, func(context.Context, *Request) (Reply, error) {
				return Reply{Msg: &wire.PutShardReply{}}, nil
			})
			m.Handle(wire.MethodGetShard, nil, func(context.Context, *Request) (Reply, error) {
				return Reply{Msg: &wire.GetShardReply{}, Payload: [][]byte{data}}, nil
			})
			f(b, newRig(b, k, m).conn())
		})
	}
}

func BenchmarkCall(b *testing.B) {
	benchEach(b, func(b *testing.B, c Conn) {
		for _, ways := range []int{1, 4, 64} {
			b.Run(fmt.Sprintf("%dway", ways), func(b *testing.B) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				b.ReportAllocs()
				parallel(b, ways, func() error {
					_, err := c.Call(ctx, wire.MethodQuery, &wire.Query{Session: 7})
					return err
				})
			})
		}
	})
}

func BenchmarkPut1MiB(b *testing.B) {
	benchEach(b, func(b *testing.B, c Conn) {
		data := pattern(2, 1<<20)
		for _, ways := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dway", ways), func(b *testing.B) {
				b.SetBytes(1 << 20)
				b.ReportAllocs()
				parallel(b, ways, func() error {
					_, _, err := c.CallBulk(context.Background(), wire.MethodPutShard, &wire.PutShard{}, [][]byte{data}, nil)
					return err
				})
			})
		}
	})
}

func BenchmarkGet1MiB(b *testing.B) {
	benchEach(b, func(b *testing.B, c Conn) {
		for _, ways := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dway", ways), func(b *testing.B) {
				b.SetBytes(1 << 20)
				b.ReportAllocs()
				into := sync.Pool{New: func() any { p := make([]byte, 1<<20); return &p }}
				parallel(b, ways, func() error {
					p := into.Get().(*[]byte)
					_, _, err := c.CallBulk(context.Background(), wire.MethodGetShard, &wire.GetShard{}, nil, *p)
					into.Put(p)
					return err
				})
			})
		}
	})
}

// parallel runs f b.N times on ways goroutines.
func parallel(b *testing.B, ways int, f func() error) {
	todo := make(chan struct{}, b.N)
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	var wg sync.WaitGroup
	b.ResetTimer()
	start := cpuTime()
	defer func() {
		b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
	}()
	for range ways {
		wg.Go(func() {
			for range todo {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// cpuTime is what this process, both ends of the connection, has used.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
