package offload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// hostFacts is what job files can say of the hosts of agents, by node: their names
// and labels, those of other nodes of the same host included.
func hostFacts(nodes []*wire.NodeStatus) map[uint32]jobfile.Host {
	shared := map[string][]*wire.Label{}
	for _, n := range nodes {
		if host := n.GetNode().GetEndpoint().GetHost(); host != "" && n.Node.Kind != "agent" {
			shared[host] = append(shared[host], n.Node.Labels...)
		}
	}
	out := map[uint32]jobfile.Host{}
	for _, n := range nodes {
		if n.GetNode().GetKind() != "agent" {
			continue
		}
		h := jobfile.Host{Names: []string{n.Node.Name}, Labels: map[string]string{}}
		for _, l := range slices.Concat(shared[n.Node.GetEndpoint().GetHost()], n.Node.Labels) {
			h.Labels[l.Key] = l.Value // its own come last
		}
		short, _, _ := strings.Cut(n.Node.Name, ":")
		for _, name := range []string{short, h.Labels["host"]} {
			if name != "" && !slices.Contains(h.Names, name) {
				h.Names = append(h.Names, name)
			}
		}
		out[n.Node.Id] = h
	}
	return out
}

// cluster asks for the nodes, once for each job.
func (e *expander) cluster(ctx context.Context, line int) ([]*wire.NodeStatus, error) {
	if e.nodes == nil {
		ans, err := ask(ctx, e.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ListNodes{ListNodes: &wire.ListNodes{}}})
		if err != nil {
			return nil, problem(wire.CodeOf(err), e.job, line, "looking for hosts: %v", err)
		}
		e.nodes = ans.GetNodes().GetNodes()
	}
	return e.nodes, nil
}

// hosts are the agents on which a job may run. A job that may run on none of those
// there are is refused; where no agent has registered yet, it waits for one.
func (e *expander) hosts(ctx context.Context, spec *jobfile.Spec) ([]*wire.NodeStatus, error) {
	line := cmp.Or(spec.HostsLine, spec.ZonesLine)
	nodes, err := e.cluster(ctx, line)
	if err != nil {
		return nil, err
	}
	agents := slices.DeleteFunc(slices.Clone(nodes), func(n *wire.NodeStatus) bool { return n.GetNode().GetKind() != "agent" })
	if !spec.Bound() {
		return agents, nil
	}
	facts := hostFacts(nodes)
	var out []*wire.NodeStatus
	for _, n := range agents {
		if spec.Allows(facts[n.Node.Id]) {
			out = append(out, n)
		}
	}
	if len(out) == 0 && len(agents) > 0 {
		return nil, problem(wire.Unsupported, e.job, line, "no host of this cluster that runs tasks is one of the %s", spec.Where())
	}
	return out, nil
}

// runs refuses a job that needs a runtime, one of several, which none of the
// hosts that it may use has. Where no host has registered yet, the job waits for
// one; and so it does for a device that is not offered now.
func (e *expander) runs(ctx context.Context, spec *jobfile.Spec, runtimes []string, line int) error {
	hosts, err := e.hosts(ctx, spec)
	if err != nil || len(hosts) == 0 {
		return err
	}
	simulated := false
	for _, n := range hosts {
		for _, r := range runtimes {
			if slots, only := slotsOf(n, r, spec.Simulated); slots > 0 {
				return nil
			} else if only {
				simulated = true
			}
		}
	}
	what := strings.Join(runtimes, " or ")
	switch {
	case simulated:
		return problem(wire.Unsupported, e.job, line, "%s runs on simulated devices only; \"placement: {simulated: true}\" allows them", what)
	case spec.Bound():
		return problem(wire.Unsupported, e.job, line, "none of the %s runs %s", spec.Where(), what)
	}
	return problem(wire.Unsupported, e.job, line, "no host of this cluster runs %s", what)
}

// slotsOf is how many tasks with a runtime an agent can run at once. only: its
// devices for that are all simulated, and that is not allowed.
func slotsOf(n *wire.NodeStatus, runtime string, simulated bool) (slots int, only bool) {
	if slices.Contains(n.Node.Runtimes, runtime) && !isDevice(runtime) {
		return max(int(n.Slots), 1), false
	}
	for _, d := range n.Devices {
		switch {
		case d.Runtime != runtime:
		case d.Simulated && !simulated:
			only = true
		default:
			slots += max(int(d.Slots), 1)
		}
	}
	if slots == 0 && !only && slices.Contains(n.Node.Runtimes, runtime) {
		slots = 1
	}
	return slots, only && slots == 0
}

// fits refuses a job whose tasks cannot be placed as its job file asks, on the
// hosts that there are: a gang that is too large, or data that lies where nothing
// runs.
func (e *expander) fits(ctx context.Context, spec *jobfile.Spec, ref *wire.KernelRef, tasks []*wire.Task) error {
	if !spec.Gang && spec.Locality != jobfile.Strict {
		return nil
	}
	hosts, err := e.hosts(ctx, spec)
	if err != nil || len(hosts) == 0 {
		return err
	}
	if spec.Gang {
		if err := e.gangFits(spec, ref, hosts, len(tasks)); err != nil {
			return err
		}
	}
	if spec.Locality != jobfile.Strict {
		return nil
	}
	nodes, err := e.cluster(ctx, spec.LocalityLine)
	if err != nil {
		return err
	}
	runs, hostOf, name := map[string]bool{}, map[uint32]string{}, map[uint32]string{}
	for _, n := range nodes {
		hostOf[n.Node.Id], name[n.Node.Id] = hostID(n), n.Node.Name
	}
	for _, n := range hosts {
		runs[hostID(n)] = true
	}
	for _, x := range tasks {
		held := local(x, hostOf)
		most := uint64(0)
		for _, bytes := range held {
			most = max(most, bytes)
		}
		var names []string
		found := most == 0
		for _, in := range x.Inputs {
			for _, s := range in.Servers {
				if host := hostOf[s]; held[host] == most && most > 0 {
					found = found || runs[host]
					if !slices.Contains(names, name[s]) {
						names = append(names, name[s])
					}
				}
			}
		}
		if !found {
			return problem(wire.Unsupported, e.job, spec.LocalityLine, "the data of task %d lies on %s, and no host that may run it holds as much (locality: strict)", x.N, list(names))
		}
	}
	return nil
}

func hostID(n *wire.NodeStatus) string {
	return cmp.Or(n.GetNode().GetEndpoint().GetHost(), "node "+fmt.Sprint(n.GetNode().GetId()))
}

func (e *expander) gangFits(spec *jobfile.Spec, ref *wire.KernelRef, hosts []*wire.NodeStatus, tasks int) error {
	if tasks > jobfile.MaxGang {
		return problem(wire.Invalid, e.job, spec.GangLine, "a gang of %d tasks is too large; at most %d may start together", tasks, jobfile.MaxGang)
	}
	runtimes := []string{runtimeExec}
	if spec.Map.Exec == nil {
		runtimes = candidates(spec.Runtime, ref, false)
	}
	slots := 0
	for _, n := range hosts {
		if n.Slots == 0 {
			return nil // it has not said yet
		}
		for _, r := range runtimes {
			k, _ := slotsOf(n, r, spec.Simulated)
			slots += k
		}
	}
	if slots < tasks {
		return problem(wire.Unsupported, e.job, spec.GangLine, "its %d tasks are to start together (gang), and %s can run %d at once", tasks, spec.Where(), slots)
	}
	return nil
}
