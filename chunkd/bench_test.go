package chunkd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// cpuSeconds is the CPU time of this process so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// reportCPU adds CPU seconds a GiB and microseconds an operation.
func reportCPU(b *testing.B, start float64, bytes int64) {
	used := cpuSeconds() - start
	b.ReportMetric(used*(1<<30)/float64(bytes), "cpu-s/GiB")
	b.ReportMetric(used*1e6/float64(b.N), "cpu-µs/op")
}

// BenchmarkPut stores shards, several at once, each durable.
func BenchmarkPut(b *testing.B) {
	for _, c := range []struct{ size, writers int }{{4 << 10, 1}, {4 << 10, 32}, {1 << 20, 1}, {1 << 20, 4}, {1 << 20, 16}} {
		b.Run(fmt.Sprintf("%dKiB/%d", c.size>>10, c.writers), func(b *testing.B) {
			s := openStore(b, testConfig(b.TempDir()))
			data := shardBytes(shardID{1, 1}, c.size)
			req := putRequest(shardID{}, data)
			var next atomic.Uint64
			b.SetBytes(int64(c.size))
			b.SetParallelism(max(c.writers/runtime.GOMAXPROCS(0), 1))
			work := func() {
				q := &wire.PutShard{Block: next.Add(1), Length: req.Length, Leaves: req.Leaves, Root: req.Root}
				if _, err := s.Put(context.Background(), q, data); err != nil {
					b.Error(err)
				}
			}
			start := cpuSeconds()
			b.ResetTimer()
			if c.writers == 1 {
				for range b.N {
					work()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						work()
					}
				})
			}
			b.StopTimer()
			reportCPU(b, start, int64(b.N)*int64(c.size))
		})
	}
}

// BenchmarkWriteBlock encodes, hashes and stores 4 MiB blocks on six servers in
// this process.
func BenchmarkWriteBlock(b *testing.B) {
	p := block.Policy{K: 4, M: 2}
	c := newCluster(b, 6, transport.InProcess)
	data := randomBytes(rand.New(rand.NewPCG(1, 1)), block.MaxBlockSize)
	var id atomic.Uint64
	b.SetBytes(int64(len(data)))
	start := cpuSeconds()
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := id.Add(1)
			if _, err := c.client.WriteBlock(context.Background(), p, ticket(n, p), nil, data); err != nil {
				b.Error(err)
			}
		}
	})
	reportCPU(b, start, int64(b.N)*int64(len(data)))
}

// BenchmarkReadBlock reads from servers on this host, in the page cache.
func BenchmarkReadBlock(b *testing.B) {
	p := block.Policy{K: 4, M: 2}
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20, 4 << 20} {
		for _, lost := range []int{0, 1} {
			b.Run(fmt.Sprintf("%dKiB/lost%d", size>>10, lost), func(b *testing.B) {
				c := newCluster(b, 6, transport.InProcess)
				r := rand.New(rand.NewPCG(1, 1))
				data := randomBytes(r, block.MaxBlockSize)
				rec := c.write(1, p, data)
				for i := range lost {
					c.nodes[i].setDown(true)
				}
				buf := make([]byte, size)
				b.SetBytes(int64(size))
				start := cpuSeconds()
				n := 0
				for b.Loop() {
					// Random for small reads, in order for large ones.
					off := n * size % block.MaxBlockSize
					if size == 4<<10 {
						off = r.IntN(block.MaxBlockSize-size) &^ 4095
					}
					n++
					if err := c.client.ReadBlock(context.Background(), rec, buf, off); err != nil {
						b.Fatal(err)
					}
				}
				reportCPU(b, start, int64(b.N)*int64(size))
			})
		}
	}
}
