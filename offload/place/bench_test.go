package place

import (
	"fmt"
	"math/rand"
	"syscall"
	"testing"
	"time"
)

// BenchmarkRound is one round over 100,000 tasks of 20 jobs and 4 users on
// 1,000 devices of three classes with 4 slots each.
func BenchmarkRound(b *testing.B) {
	for _, c := range []struct {
		name string
		free int64 // of the 4 slots
		rows int
	}{{"all slots free", 4, 0}, {"all slots free, with tables", 4, 4}, {"one device in ten has a slot free", 0, 4}} {
		b.Run(c.name, func(b *testing.B) {
			tasks, agents := large(c.free)
			b.ReportAllocs()
			started := 0
			before := cpu()
			for b.Loop() {
				started = len(Place(tasks, agents, Options{Model: Default, Rows: c.rows}).Starts())
			}
			b.ReportMetric(float64(started), "starts")
			b.ReportMetric(float64((cpu()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpu is what this process has used: on a busy machine the wall clock says
// little.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func large(free int64) ([]Task, []Agent) {
	rnd := rand.New(rand.NewSource(1))
	var agents []Agent
	for i := range 1000 {
		n := free
		if free == 0 && i%10 == 0 {
			n = 1
		}
		var busy []time.Duration
		for range 4 - n {
			busy = append(busy, time.Duration(1+rnd.Intn(20000))*time.Millisecond)
		}
		a := agent(uint32(i+1), fmt.Sprint("h", i), n, busy...)
		a.Devices[0].Class = fmt.Sprint("class", i%3)
		a.Devices[0].Process = float64(1+i%3) * 50e6
		agents = append(agents, a)
	}
	tasks := make([]Task, 100_000)
	for i := range tasks {
		var local []Held
		for range 3 {
			local = append(local, Held{fmt.Sprint("h", rnd.Intn(1000)), 16 << 20})
		}
		tasks[i] = task(uint64(1+i/5000), uint32(i%5000), 64<<20, local...)
		tasks[i].User = fmt.Sprint("u", i/5000%4)
	}
	return tasks, agents
}
