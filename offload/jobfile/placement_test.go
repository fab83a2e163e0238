package jobfile

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePlacement(t *testing.T) {
	const head = "version: 1\nkernel: k\ninputs: [/a]\n"
	s, err := Parse([]byte(head + `placement:
  locality: strict
  hosts: rack=r1 and not big-*
  zones: [a, 7]
  simulated: True
gang: true
share: 0.5
objective: makespan
`))
	if err != nil {
		t.Fatal(err)
	}
	p := s.Placement
	if p.Locality != Strict || p.Hosts.String() != "rack=r1 and not big-*" || !reflect.DeepEqual(p.Zones, []string{"a", "7"}) ||
		!p.Simulated || !p.Gang || p.Share != 0.5 || !p.Makespan || p.LocalityLine != 5 || p.HostsLine != 6 || p.ZonesLine != 7 || p.GangLine != 9 {
		t.Errorf("%+v", p)
	}
	if got := p.Where(); got != "hosts rack=r1 and not big-* in zone a or 7" {
		t.Error(got)
	}
	for _, c := range []struct {
		host Host
		want bool
	}{
		{Host{[]string{"h1"}, map[string]string{"rack": "r1", "zone": "a"}}, true},
		{Host{[]string{"h1"}, map[string]string{"rack": "r1"}}, false},
		{Host{[]string{"h1"}, map[string]string{"rack": "r1", "zone": "b"}}, false},
		{Host{[]string{"big-7"}, map[string]string{"rack": "r1", "zone": "a"}}, false},
	} {
		if p.Allows(c.host) != c.want {
			t.Errorf("%+v: %v", c.host, !c.want)
		}
	}
	s, err = Parse([]byte(head))
	if err != nil || s.Locality != Prefer || s.Bound() || s.Gang || s.Simulated || !s.Allows(Host{}) || s.Where() != "any host" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = Parse([]byte(head + "placement: {hosts: [h1, 'h2*'], zones: z}\nobjective: sum\n"))
	if err != nil || s.Hosts.String() != "h1 or h2*" || !reflect.DeepEqual(s.Zones, []string{"z"}) || s.Makespan {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestParsePlacementRefuses(t *testing.T) {
	const head = "version: 1\nkernel: k\ninputs: [/a]\n"
	for file, want := range map[string]string{
		"placement: strict\n":                    `line 4: placement must be a mapping such as {locality: strict}, not "strict"`,
		"placement: {local: 1}\n":                `line 4: unknown field "local"`,
		"placement: {zone: a}\n":                 `line 4: unknown field "zone"; did you mean "zones"?`,
		"placement: {locality: near}\n":          `line 4: placement.locality must be prefer, strict or any, not "near"`,
		"placement: {locality: [any]}\n":         `line 4: placement.locality must be prefer, strict or any, not a list`,
		"placement: {hosts: ''}\n":               `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": it is empty`,
		"placement: {hosts: a b}\n":              `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": "b" is where "and", "or" or the end is expected`,
		"placement: {hosts: a and}\n":            `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": it ends where a host is expected`,
		"placement: {hosts: (a or b}\n":          `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": a ")" is missing`,
		"placement: {hosts: or a}\n":             `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": "or" is where a host is expected`,
		"placement: {hosts: rack=}\n":            `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": "rack=" is not a label and its value, such as rack=r1`,
		"placement: {hosts: '=r1'}\n":            `line 4: placement.hosts must be an expression such as "rack=r1 and not big-*": "=r1" is not a label and its value, such as rack=r1`,
		"placement: {hosts: {a: b}}\n":           `line 4: placement.hosts must be text, not a mapping`,
		"placement: {hosts: []}\n":               `line 4: placement.hosts names no host`,
		"placement: {hosts: [a, '']}\n":          `line 4: an entry of placement.hosts is empty`,
		"placement:\n  hosts:\n  - a\n  - [b]\n": `line 7: entry 2 of placement.hosts must be text, not a list`,
		"placement: {zones: {a: b}}\n":           `line 4: placement.zones must be a list, not a mapping`,
		"placement: {zones: []}\n":               `line 4: placement.zones names no zone`,
		"placement: {zones: ''}\n":               `line 4: an entry of placement.zones is empty`,
		"placement: {simulated: yes please}\n":   `line 4: placement.simulated must be true or false, not "yes please"`,
		"gang: 3\n":                              `line 4: gang must be true or false, not the number 3`,
		"share: 0\n":                             `line 4: share must be a number from 0.01 to 100, not the number 0`,
		"share: .inf\n":                          `line 4: share must be a number from 0.01 to 100, not the number .inf`,
		"share: much\n":                          `line 4: share must be a number from 0.01 to 100, not "much"`,
		"objective: fast\n":                      `line 4: objective must be sum or makespan, not "fast"`,
		"objective: [sum]\n":                     `line 4: objective must be sum or makespan, not a list`,
	} {
		if _, err := Parse([]byte(head + file)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", file, err, want)
		}
	}
	deep := strings.Repeat("not ", 20) + "a"
	if _, err := ParseHosts(deep); err == nil || err.Error() != "it is nested more than 16 deep" {
		t.Error(err)
	}
	if _, err := ParseHosts(strings.Repeat("a or ", 300) + "a"); err == nil || err.Error() != "it is longer than 1024 bytes" {
		t.Error(err)
	}
}

func TestHostExpr(t *testing.T) {
	h := Host{Names: []string{"h7:mount-1", "h7"}, Labels: map[string]string{"rack": "r2", "gpu": "a100"}}
	for expr, want := range map[string]bool{
		"h7": true, "h*": true, "h?": true, "h8": false, "*": true, "h7:*": true, "?": false, "*-1": true, "h*7*1": true, "h7?": false,
		"rack=r2": true, "rack=r*": true, "rack=r1": false, "gpu=*": true, "fpga=*": false, "not fpga=*": true,
		"h7 and rack=r1": false, "h7 or rack=r1": true, "h8 or rack=r2 and gpu=*": true, "(h8 or rack=r2) and gpu=b*": false,
		"not (h8 or rack=r1)": true, "not not h7": true, "not h7 or h7": true, "rack=r2 and (gpu=v100 or gpu=a100)": true,
	} {
		e, err := ParseHosts(expr)
		if err != nil || e.Match(h) != want {
			t.Errorf("%s: %v, %v", expr, !want, err)
			continue
		}
		if again, err := ParseHosts(e.String()); err != nil || again.Match(h) != want || again.String() != e.String() {
			t.Errorf("%s is written as %s: %v", expr, e, err)
		}
	}
}

// FuzzHosts: what is read is written so that it is read as the same.
func FuzzHosts(f *testing.F) {
	for _, s := range []string{"a", "not (a or b=c) and d*", "((a))", "a and b and c or d", "=", "not", "a)(", "é=ü"} {
		f.Add(s, "name", "label")
	}
	f.Fuzz(func(t *testing.T, s, name, label string) {
		e, err := ParseHosts(s)
		if err != nil {
			return
		}
		h := Host{Names: []string{name}, Labels: map[string]string{"label": label}}
		if again, err := ParseHosts(e.String()); err == nil && again.Match(h) != e.Match(h) {
			t.Errorf("%q is written as %q", s, e)
		} else if err != nil && len(e.String()) <= MaxHostExpr {
			t.Errorf("%q is written as %q: %v", s, e, err)
		}
	})
}
