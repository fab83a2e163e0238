package offload

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/place"
)

// TestMeasureSpeed: the shortest run counts, in steps; what was measured is kept
// for processors of the same model.
func TestMeasureSpeed(t *testing.T) {
	for _, c := range []struct {
		runs []time.Duration
		want uint32
	}{
		{[]time.Duration{speedReference}, 100},
		{[]time.Duration{9 * speedReference, speedReference / 2, 2 * speedReference}, 200},
		{[]time.Duration{speedReference * 100 / 97}, 95},
		{[]time.Duration{time.Hour}, leastSpeed},
		{[]time.Duration{1}, mostSpeed},
		{[]time.Duration{0}, 100},
	} {
		n := 0
		work := func() time.Duration { n++; return c.runs[(n-1)%len(c.runs)] }
		if got := measureSpeed(work); got != c.want || n != speedRuns {
			t.Errorf("%v: %d after %d runs, want %d", c.runs, got, n, c.want)
		}
	}
	dir := t.TempDir()
	got := speedOf(dir)
	if got < leastSpeed || got > mostSpeed {
		t.Errorf("this host has a speed of %d", got)
	}
	file := filepath.Join(dir, "speed")
	for _, c := range []struct {
		kept string
		want bool // taken over
	}{{"1 " + processorModel() + " 345\n", true}, {"1 another 345\n", false}, {"2 x 345\n", false}, {"1 " + processorModel() + " 9999999\n", false}, {"", false}} {
		if err := os.WriteFile(file, []byte(c.kept), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := speedOf(dir); (got == 345) != c.want {
			t.Errorf("%q: %d", c.kept, got)
		}
	}
	if data, err := os.ReadFile(file); err != nil || strings.Contains(string(data), "345") {
		t.Errorf("%q, %v", data, err)
	}
}

// TestSpeedOfHosts: what a kernel took on one host says what it takes on one whose
// processors are half as fast, and back.
func TestSpeedOfHosts(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	p := &puppet{r: r, node: r.addNode("agent", "fast", "h1"), speed: 200}
	q := &puppet{r: r, node: r.addNode("agent", "slow", "h2"), speed: 50}
	bigTasks(r, "job", 3, "")
	if err := p.finish(p.get(1)[0], &wire.Timing{RunNs: 2e9}); err != nil {
		t.Fatal(err)
	}
	tell := func(p *puppet) {
		if _, err := p.poll(t.Context(), 0, 0); err != nil {
			t.Fatal(err)
		}
		p.ended = nil
	}
	tell(p)
	on := func(s *wire.Assignment) (*wire.Place, time.Duration) {
		x := s.Task.Placement.Places[s.Task.Placement.Chosen]
		return x, micros(x.RunUs).Round(10 * time.Millisecond)
	}
	second := q.get(1)[0]
	if x, run := on(second); x.Node != q.node || x.Source != learnedSource || run != 8*time.Second {
		t.Errorf("on the slow host it is expected to take %v, by %s", run, x.Source)
	}
	if err := q.finish(second, &wire.Timing{RunNs: 8e9}); err != nil {
		t.Fatal(err)
	}
	tell(q)
	if x, run := on(p.get(1)[0]); x.Node != p.node || run != 2*time.Second {
		t.Errorf("on the fast host it is expected to take %v", run)
	}
}

// TestLinks: what comes over a slow link is expected to take longer, and all links
// together give what the tasks have seen.
func TestLinks(t *testing.T) {
	k := newKnowledge(place.Default)
	hosts := map[uint32]string{1: "near", 2: "far"}
	for range 20 {
		k.succeeded(ended{
			node: 9, kernel: "k", class: classCPU, bytes: 20e6, in: 20e6, remote: 20e6, hosts: hosts,
			timing:    &wire.Timing{RunNs: 1e9, ReadNs: 2e8}, // 100 MB/s
			transfers: []*wire.Transfer{{Server: 1, Bytes: 10e6, Ns: 1e8}, {Server: 2, Bytes: 10e6, Ns: 9e8}, {Server: 77, Bytes: 1e6, Ns: 1}},
		})
	}
	a := place.Agent{Node: 9, Devices: []place.Device{{}}}
	k.describe(&a)
	if math.Abs(a.Network/100e6-1) > 0.01 || len(a.From) != 2 || math.Abs(a.From["near"]/a.From["far"]/9-1) > 0.01 {
		t.Errorf("%.0f bytes a second, from %v", a.Network, a.From)
	}
	// As many bytes over each take as long as was seen.
	if both := 1/a.From["near"] + 1/a.From["far"]; math.Abs(both*a.Network/2-1) > 0.01 {
		t.Errorf("from %v at %.0f in all", a.From, a.Network)
	}
	if !a.Devices[0].Warm["k"] {
		t.Error("the kernel is not warm")
	}
	before := a.From
	k.succeeded(ended{node: 9, kernel: "k2", class: classCPU, remote: 1e6, hosts: hosts, timing: &wire.Timing{RunNs: 1e9, ReadNs: 1e9}, transfers: []*wire.Transfer{{Server: 1, Bytes: 1e6, Ns: 9e9}}})
	if len(before) != 2 || a.Devices[0].Warm["k2"] {
		t.Error("what a round has been told changes under its hands")
	}
}

// TestWhere: the attribute names who holds the bytes, and what a task over them costs
// on each host, by what was learned.
func TestWhere(t *testing.T) {
	nodes := []*wire.NodeStatus{
		{Node: &wire.Node{Id: 3, Name: "b", Kind: "agent", Endpoint: &wire.Endpoint{Host: "h2"}}},
		{Node: &wire.Node{Id: 2, Name: "a", Kind: "agent", Endpoint: &wire.Endpoint{Host: "h1"}}},
		{Node: &wire.Node{Id: 1, Name: "store", Kind: "chunkd", Endpoint: &wire.Endpoint{Host: "h1"}}},
	}
	places := []*wire.Place{
		{Node: 2, Device: "opencl:0.0", Runtime: "opencl", RunUs: 5e5, Source: "hint"},
		{Node: 2, Device: "cpu", Runtime: "wasm", RunUs: 2e6, Source: "learned"},
	}
	got := whereText(100, map[uint32]uint64{1: 100}, nodes, places)
	want := "holds store bytes=100\n" +
		"candidate a local=100 remote=0 seconds=0.50 wait=0.00 fetch=0.00 run=0.50 device=opencl:0.0 runtime=opencl by=hint\n" +
		"candidate b local=0 remote=100\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}

	r := newRig(t)
	r.lead(SchedulerConfig{Model: place.Model{Network: 10e6, Process: 50e6}})
	server := r.addNode("chunkd", "store", "h1")
	p := &puppet{r: r, node: r.addNode("agent", "a", "h1")}
	q := &puppet{r: r, node: r.addNode("agent", "b", "h2")}
	id := bigTasks(r, "job", 1, "")
	s := p.get(1)[0]
	if err := p.finish(s, &wire.Timing{RunNs: 2e9}); err != nil {
		t.Fatal(err)
	}
	r.wait(id)
	sketch := &wire.Sketch{Bytes: 1 << 20, Held: []*wire.Transfer{{Server: server, Bytes: 1 << 20}}, Kernel: s.Job.Kernels[0]}
	var list []*wire.Place
	r.until("both hosts are compared", func() bool {
		for _, x := range []*puppet{p, q} {
			if _, err := x.poll(t.Context(), 1, 1); err != nil {
				t.Fatal(err)
			}
		}
		a, err := r.sched.Explain(t.Context(), &wire.ExplainJob{Sketch: sketch})
		if err != nil || len(a.Tasks) != 1 {
			t.Fatal(a, err)
		}
		list = a.Tasks[0].Placement.Places
		return len(list) == 2 && list[0].Source == learnedSource
	})
	if x := list[0]; x.Node != p.node || x.Missing != 0 || micros(x.RunUs).Round(time.Millisecond) != 2*time.Second {
		t.Errorf("the best place: %v", x)
	}
	if x := list[1]; x.Node != q.node || x.Missing != 1<<20 || x.FetchUs == 0 {
		t.Errorf("the other place: %v", x)
	}
}
