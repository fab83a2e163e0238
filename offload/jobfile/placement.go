package jobfile

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Placement says where a job's tasks may run, and what counts.
//
//	placement:
//	  locality: prefer         # or strict: only where the data lies; any: that does not count
//	  hosts: rack=r1 and not big-*
//	  zones: [a, b]            # those with one of these as their label zone
//	  simulated: true          # simulated devices, too
//	gang: true                 # all tasks start together
//	share: 2                   # among the user's jobs
//	objective: makespan        # or sum
type Placement struct {
	Locality  Locality
	Hosts     HostExpr
	Zones     []string // none: any
	Simulated bool     // simulated devices are allowed
	Gang      bool     // all tasks of the map step start together
	Share     float64  // weight among the user's jobs; 0: 1
	Makespan  bool     // the end of the last task counts, not the sum of all

	LocalityLine, HostsLine, ZonesLine, GangLine int
}

// Locality is how the place of the inputs counts.
type Locality string

// The localities.
const (
	Prefer Locality = "prefer" // fetching costs what it takes
	Strict Locality = "strict" // only on a host that holds as much of the input as any
	Any    Locality = "any"    // as if the inputs lay nowhere
)

// Limits of these fields.
const (
	MaxZones = 64
	MaxGang  = 1024 // tasks
	MinShare = 0.01
	MaxShare = 100
)

func placementFields(s *Spec) map[string]func(*yaml.Node) error {
	p := &s.Placement
	p.Locality = Prefer
	within := map[string]func(*yaml.Node) error{
		"locality": func(n *yaml.Node) error {
			p.LocalityLine = n.Line
			if p.Locality = Locality(n.Value); n.Kind != yaml.ScalarNode || !slices.Contains([]Locality{Prefer, Strict, Any}, p.Locality) {
				return Errorf(n.Line, "placement.locality must be prefer, strict or any, not %s", describe(n))
			}
			return nil
		},
		"hosts": func(n *yaml.Node) (err error) {
			p.HostsLine = n.Line
			if n.Kind == yaml.SequenceNode {
				return hostList(n, p)
			}
			v, err := text(n, "placement.hosts")
			if err != nil {
				return err
			}
			if p.Hosts, err = ParseHosts(v); err != nil {
				return Errorf(n.Line, "placement.hosts must be an expression such as \"rack=r1 and not big-*\": %v", err)
			}
			return nil
		},
		"zones": func(n *yaml.Node) error {
			p.ZonesLine = n.Line
			list := []*yaml.Node{n}
			if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
				var err error
				if list, err = texts(n, "placement.zones", MaxZones); err != nil {
					return err
				}
			}
			for _, c := range list {
				if c.Value == "" {
					return Errorf(c.Line, "an entry of placement.zones is empty")
				}
				p.Zones = append(p.Zones, c.Value)
			}
			if len(p.Zones) == 0 {
				return Errorf(n.Line, "placement.zones names no zone")
			}
			return nil
		},
		"simulated": func(n *yaml.Node) (err error) {
			p.Simulated, err = truth(n, "placement.simulated")
			return err
		},
	}
	return map[string]func(*yaml.Node) error{
		"placement": func(n *yaml.Node) error {
			if n.Kind != yaml.MappingNode {
				return Errorf(n.Line, "placement must be a mapping such as {locality: strict}, not %s", describe(n))
			}
			return fields(n, within)
		},
		"gang": func(n *yaml.Node) (err error) {
			p.GangLine = n.Line
			p.Gang, err = truth(n, "gang")
			return err
		},
		"share": func(n *yaml.Node) error {
			v, err := strconv.ParseFloat(n.Value, 64)
			if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || err != nil || !(v >= MinShare && v <= MaxShare) {
				return Errorf(n.Line, "share must be a number from 0.01 to 100, not %s", describe(n))
			}
			p.Share = v
			return nil
		},
		"objective": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != "sum" && n.Value != "makespan" {
				return Errorf(n.Line, "objective must be sum or makespan, not %s", describe(n))
			}
			p.Makespan = n.Value == "makespan"
			return nil
		},
	}
}

// hostList reads a list of names.
func hostList(n *yaml.Node, p *Placement) error {
	list, err := texts(n, "placement.hosts", MaxZones)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range list {
		if c.Value == "" {
			return Errorf(c.Line, "an entry of placement.hosts is empty")
		}
		names = append(names, c.Value)
	}
	if len(names) == 0 {
		return Errorf(n.Line, "placement.hosts names no host")
	}
	p.Hosts = HostNames(names)
	return nil
}

// truth reads a boolean.
func truth(n *yaml.Node, field string) (bool, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		return false, Errorf(n.Line, "%s must be true or false, not %s", field, describe(n))
	}
	return strings.EqualFold(n.Value, "true"), nil
}

// Bound says whether the job may run on some hosts only.
func (p *Placement) Bound() bool { return !p.Hosts.Any() || len(p.Zones) > 0 }

// Allows says whether the job may run on a host.
func (p *Placement) Allows(h Host) bool {
	return p.Hosts.Match(h) && (len(p.Zones) == 0 || slices.Contains(p.Zones, h.Labels["zone"]))
}

// Where is which hosts those are, in words.
func (p *Placement) Where() string {
	switch {
	case !p.Bound():
		return "any host"
	case len(p.Zones) == 0:
		return "hosts " + p.Hosts.String()
	case p.Hosts.Any():
		return "hosts in " + zones(p.Zones)
	}
	return "hosts " + p.Hosts.String() + " in " + zones(p.Zones)
}

func zones(list []string) string {
	text := "zone " + list[0]
	for _, z := range list[1:] {
		text += " or " + z
	}
	return text
}
