package offload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"quernfs/offload/jobfile"
	"quernfs/offload/place"
)

// reach is what the connected agents offer in all, as a round sees them.
type reach struct {
	agents []place.Agent
	all    map[string]bool // runtimes
	real   map[string]bool // of these, on devices that are not simulated
}

func reachOf(agents []place.Agent) *reach {
	r := &reach{agents, map[string]bool{}, map[string]bool{}}
	for i := range agents {
		for k := range agents[i].Devices {
			d := &agents[i].Devices[k]
			for _, runtime := range d.Runtimes {
				r.all[runtime] = true
				r.real[runtime] = r.real[runtime] || !d.Simulated
			}
		}
	}
	return r
}

// missing says what a job waits for if none of the connected agents can run its
// next task; "" if one can. mu is held.
func (t *term) missing(j *jobState, r *reach) string {
	if j.stale || j.spec == nil || len(j.pending) == 0 || j.job.State == StateWaiting {
		return ""
	}
	x := j.task(j.pending[0])
	alts := j.alternatives(x.t.Phase)
	have := r.real
	if j.spec.Simulated {
		have = r.all
	}
	runs := func(a place.Alternative) bool { return have[a.Runtime] }
	if !slices.ContainsFunc(alts, runs) {
		if n, ok := j.program(x.t.Phase); ok {
			return "waiting: no host that can run " + n.program + " as this job needs it is connected"
		}
		var names []string
		for _, a := range alts {
			names = append(names, a.Runtime)
		}
		what := strings.Join(names, " or ")
		if slices.ContainsFunc(alts, func(a place.Alternative) bool { return r.all[a.Runtime] }) {
			return "waiting: " + what + " runs on simulated devices only, which this job does not allow (placement.simulated)"
		}
		return "waiting: no host that runs " + what + " is connected"
	}
	if !j.spec.Bound() && j.spec.Locality != jobfile.Strict {
		return ""
	}
	p := t.pattern(j, x.t.Phase)
	own := j.placeTask(x, t.hosts)
	p = t.of(p, &own)
	if slices.ContainsFunc(r.agents, func(a place.Agent) bool { return p.MayRun(&a) }) {
		return ""
	}
	if p.Strict && len(p.Local) > 0 {
		p.Strict = false
		if slices.ContainsFunc(r.agents, func(a place.Agent) bool { return p.MayRun(&a) }) {
			return fmt.Sprintf("waiting: the data of task %d lies on %s (locality: strict), which runs no tasks now", x.t.N, t.hostNames(strictHosts(&p)))
		}
	}
	return "waiting: none of the " + j.spec.Where() + " that can run it is connected"
}

// strictHosts are those that hold as much of a task's input as any.
func strictHosts(p *place.Task) (out []string) {
	for _, h := range p.Local {
		if p.Nearest(h.Host) {
			out = append(out, h.Host)
		}
	}
	return out
}

// why says what keeps a pending task of a job back, besides hosts that are busy;
// "" if there is nothing. mu is held.
func (t *term) why(j *jobState, n uint32, agents []place.Agent) string {
	x := j.task(n)
	if j.spec == nil || j.job.Paused {
		return ""
	}
	if j.spec.Gang && x.t.Phase == "map" && len(j.pending) > 1 {
		p := t.pattern(j, x.t.Phase)
		free := int64(0)
		for i := range agents {
			free += p.Room(&agents[i])
		}
		return fmt.Sprintf("its %d tasks start together (gang), and %s of %s free", len(j.pending), areSlots(free), j.spec.Where())
	}
	if p := j.spec.Parallel; p > 0 && t.underWay(j) >= p {
		return fmt.Sprintf("at most %s of the job run at once (parallel)", count(p, "task"))
	}
	if own := j.placeTask(x, t.hosts); j.spec.Locality == jobfile.Strict && len(own.Local) > 0 {
		return fmt.Sprintf("the data of task %d lies on %s (locality: strict), which is busy", n, t.hostNames(strictHosts(&own)))
	}
	if j.spec.Bound() {
		return "the " + j.spec.Where() + " are busy"
	}
	return ""
}

func areSlots(n int64) string {
	if n == 1 {
		return "1 slot is"
	}
	return fmt.Sprintf("%d slots are", n)
}

// hostNames are hosts as people know them: by the names of the agents there, else
// of other nodes. mu is held.
func (t *term) hostNames(hosts []string) string {
	const most = 4
	var names []string
	for _, host := range hosts {
		agent, other := "", ""
		for _, n := range t.nodes {
			if t.hosts[n.GetNode().GetId()] != host {
				continue
			}
			if name := n.GetNode().GetName(); n.GetNode().GetKind() == "agent" {
				agent = cmp.Or(agent, name)
			} else {
				other = cmp.Or(other, name)
			}
		}
		names = append(names, cmp.Or(agent, other, host))
	}
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, " or ")
}
