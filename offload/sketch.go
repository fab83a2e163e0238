package offload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
	"quernfs/offload/place/predict"
)

// maxSketch is how many places a sketch is told.
const maxSketch = 1024

// sketch says where a task that does not exist would go, and what it would cost at
// each place, the best first. mu is held.
func (t *term) sketch(x *wire.Sketch, now time.Time) *wire.JobsAnswer {
	agents, _ := t.offers(now)
	for i := range agents {
		for k := range agents[i].Devices {
			// Also of one that is just about to ask.
			d := &agents[i].Devices[k]
			d.Free.Slots = max(d.Free.Slots, d.Capacity.Slots-int64(len(d.Running)))
		}
	}
	p := place.Task{Bytes: x.Bytes, Alternatives: sketched(x.Kernel)}
	held := map[string]uint64{}
	for _, h := range x.Held {
		held[t.hosts[h.Server]] += h.Bytes
	}
	for host, bytes := range held {
		p.Local = append(p.Local, place.Held{Host: host, Bytes: bytes})
	}
	slices.SortFunc(p.Local, func(a, b place.Held) int { return cmp.Compare(a.Host, b.Host) })
	for i := range p.Alternatives {
		var ratio float64
		p.Alternatives[i].WarmUp, ratio = t.s.known.expect(p.Alternatives[i].Kernel)
		if i == 0 {
			p.Output = uint64(ratio * float64(p.Bytes))
		}
	}
	out := new(wire.Placement)
	for _, r := range place.Compare(p, agents, place.Options{Model: t.s.cfg.Model, Fit: t.s.known.fit, Rows: maxSketch}) {
		out.Places = append(out.Places, wirePlace(r.Node, r.Device, p.Alternatives[r.Alt].Runtime, r.Cost, r.Avoid))
	}
	return &wire.JobsAnswer{Tasks: []*wire.Task{{Placement: out}}}
}

// sketched are the ways to run a kernel; nil: one of which nothing is known.
func sketched(ref *wire.KernelRef) (out []place.Alternative) {
	if strings.HasPrefix(ref.GetName(), runtimeExec+" ") {
		return []place.Alternative{{Runtime: runtimeExec, Kernel: variantKey(ref, runtimeExec)}}
	}
	for _, r := range candidates(nil, ref, false) {
		out = append(out, place.Alternative{
			Runtime: r, Kernel: variantKey(ref, r), Digest: string(variantDigest(ref, r)), Hint: predict.Hint{Rate: float64(hintOf(ref, r))},
		})
	}
	return out
}

// where says which hosts hold a file's bytes, and when a task over them would end on
// each host that runs tasks, with the kernel of the job that was last submitted by
// an attribute of the file.
func (o *Overlay) where(ctx context.Context, t *Target) ([]byte, error) {
	if !isFile(t.Inode.GetAttr().GetMode()) {
		return nil, noAttr(attrWhere)
	}
	held, err := o.submit.Files.Where(ctx, t.Ino)
	if err != nil {
		return nil, err
	}
	ans, err := ask(ctx, o.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ListNodes{ListNodes: &wire.ListNodes{}}})
	if err != nil {
		return nil, err
	}
	size := t.Inode.GetAttr().GetSize()
	s := &wire.Sketch{Bytes: size}
	for server, bytes := range held {
		s.Held = append(s.Held, &wire.Transfer{Server: server, Bytes: bytes})
	}
	slices.SortFunc(s.Held, func(a, b *wire.Transfer) int { return cmp.Compare(a.Server, b.Server) })
	if job, err := o.jobOf(ctx, t); err == nil && len(job.Kernels) > 0 {
		s.Kernel = job.Kernels[0]
	}
	// Without an answer the rest is still true.
	costs, _ := ask(ctx, o.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ExplainJob{ExplainJob: &wire.ExplainJob{Sketch: s}}})
	var places []*wire.Place
	if tasks := costs.GetJobs().GetTasks(); len(tasks) > 0 {
		places = tasks[0].GetPlacement().GetPlaces()
	}
	return []byte(whereText(size, held, ans.GetNodes().GetNodes(), places)), nil
}

// whereText is the value of the attribute. places are the best first.
func whereText(size uint64, held map[uint32]uint64, nodes []*wire.NodeStatus, places []*wire.Place) string {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *wire.NodeStatus) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	var b strings.Builder
	near := map[string]uint64{}
	for _, n := range nodes {
		if bytes := held[n.Node.Id]; bytes > 0 {
			fmt.Fprintf(&b, "holds %s bytes=%d\n", n.Node.Name, bytes)
			near[n.Node.GetEndpoint().GetHost()] += bytes
		}
	}
	for _, n := range nodes {
		if n.Node.Kind != "agent" {
			continue
		}
		local := min(near[n.Node.GetEndpoint().GetHost()], size)
		fmt.Fprintf(&b, "candidate %s local=%d remote=%d", n.Node.Name, local, size-local)
		if i := slices.IndexFunc(places, func(p *wire.Place) bool { return p.Node == n.Node.Id }); i >= 0 {
			p := places[i]
			fmt.Fprintf(&b, " seconds=%.2f wait=%.2f fetch=%.2f run=%.2f device=%s runtime=%s by=%s", PlaceTotal(p).Seconds(),
				micros(p.WaitUs).Seconds(), micros(p.FetchUs).Seconds(), micros(p.RunUs).Seconds(), cmp.Or(p.Device, classCPU), cmp.Or(p.Runtime, jobfile.RuntimeWasm), p.Source)
		}
		b.WriteString("\n")
	}
	return b.String()
}
