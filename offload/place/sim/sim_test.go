package sim

import (
	"reflect"
	"testing"
)

// long skips what takes the race detector minutes.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one goroutine, long: nothing for the race detector to find")
	}
}

func builtinRuns(t *testing.T, name string) map[string]Result {
	t.Helper()
	w, err := Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Result{}
	for _, p := range Policies {
		r := Run(w, p)
		out[p.Name] = r
		t.Logf("%-14s %5d tasks, makespan %7.0f s, sum %9.0f s, moved %6.1f GB, busy %.2f, errors %.3f", p.Name, r.Tasks, r.Makespan, r.Sum, float64(r.Moved)/1e9, r.Busy, r.Errors)
		for _, u := range r.Waiting {
			t.Logf("%14s %+v", "", u)
		}
		if r.Left != 0 {
			t.Errorf("%s: %d tasks never ran", p.Name, r.Left)
		}
	}
	return out
}

// TestBeatsOthers: on the workloads that come with quern, ours ends sooner, in
// the sum and at last, than placement by data alone and than by the cheapest
// host, and moves fewer bytes than the latter. Where nothing beats staying with
// the data, it comes within 2 % of that.
func TestBeatsOthers(t *testing.T) {
	long(t)
	for _, name := range []string{"mixed", "data", "even"} {
		t.Run(name, func(t *testing.T) {
			rs := builtinRuns(t, name)
			ours := rs["ours"]
			slack := 1.0
			if name == "even" {
				slack = 1.02
			}
			for _, other := range []string{"data-local", "cheapest-host"} {
				if o := rs[other]; ours.Sum >= slack*o.Sum || ours.Makespan >= slack*o.Makespan {
					t.Errorf("sum %.0f, makespan %.0f; %s has %.0f, %.0f", ours.Sum, ours.Makespan, other, o.Sum, o.Makespan)
				}
			}
			if ours.Moved >= rs["cheapest-host"].Moved {
				t.Errorf("%d bytes are moved, by the cheapest host %d", ours.Moved, rs["cheapest-host"].Moved)
			}
		})
	}
}

// TestErrorFalls: what is predicted comes nearer to what happens as tasks
// finish, down to about the scatter of the run times.
func TestErrorFalls(t *testing.T) {
	long(t)
	w, err := Builtin("mixed")
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range w.Kernels { // nobody says anything, and nothing was measured
		k.Stragglers = 0
		w.Kernels[name] = k
	}
	for i := range w.Hosts {
		for k := range w.Hosts[i].Also {
			w.Hosts[i].Also[k].Process = 0
		}
	}
	few := *w
	few.Jobs = []Job{w.Jobs[0]}
	few.Jobs[0].Tasks, few.Jobs[0].Spread = 200, 3
	for _, x := range []*Workload{w, &few} {
		e := Run(x, Policies[0]).Errors
		if e[3] >= e[0] || e[3] > 0.2 {
			t.Errorf("errors by quarters: %.3f", e)
		}
		t.Logf("errors by quarters: %.3f", e)
	}
}

// TestDay: over a day with a user whose jobs alone are more than the cluster can
// do, nobody starves: short jobs of another start within minutes, gangs and
// tasks that need most of a host within an hour, jobs of low priority too, and
// everything runs in the end.
func TestDay(t *testing.T) {
	long(t)
	w, err := Builtin("day")
	if err != nil {
		t.Fatal(err)
	}
	r := Run(w, Policies[0])
	t.Logf("%d tasks, makespan %.0f s, busy %.2f, %d attempts lost", r.Tasks, r.Makespan, r.Busy, r.Lost)
	limits := map[string]float64{"often": 15 * 60, "gangs": 3600, "large": 3600, "flood": 24 * 3600}
	for _, u := range r.Waiting {
		t.Logf("%+v", u)
		if u.Max > limits[u.User] {
			t.Errorf("a task of %s waits for %.0f s", u.User, u.Max)
		}
	}
	if r.Left != 0 || r.Lost == 0 || len(r.Waiting) != len(limits) {
		t.Errorf("%d tasks left, %d attempts lost, %d users", r.Left, r.Lost, len(r.Waiting))
	}
}

// TestSpeed: hosts of one class but of various speed are told apart by what was
// measured of their processors, so that predictions learned on all of them are right
// for each; without that they are not.
func TestSpeed(t *testing.T) {
	const text = `
version: 1
hosts: [{count: 2, class: cpu, slots: 2, speed: 0.25}, {count: 2, class: cpu, slots: 2}, {count: 1, class: cpu, slots: 2, speed: 2}]
kernels: {k: {scatter: 0.05, classes: {cpu: {rate: 20MB}}}}
jobs: [{kernel: k, tasks: 200, bytes: 40MB, spread: 2}]
`
	w, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r := Run(w, Policies[0])
	t.Logf("makespan %.0f s, errors %.3f", r.Makespan, r.Errors)
	if r.Left != 0 || r.Errors[3] > 0.1 {
		t.Errorf("%d tasks left; the error of the last quarter is %.3f", r.Left, r.Errors[3])
	}
	for _, other := range Policies[1:] {
		if o := Run(w, other); o.Left == 0 && o.Makespan < r.Makespan {
			t.Errorf("%s ends after %.0f s", other.Name, o.Makespan)
		}
	}
}

// TestLocality: strict tasks move nothing, and with any as if there were no local
// bytes more is moved than by default.
func TestLocality(t *testing.T) {
	moved := map[string]uint64{}
	for _, locality := range []string{"strict", "prefer", "any"} {
		w, err := Parse([]byte("version: 1\nhosts: [{count: 4, class: cpu}]\nkernels: {k: {classes: {cpu: {rate: 20MB}}}}\n" +
			"jobs: [{kernel: k, tasks: 60, bytes: 40MB, skew: true, locality: " + locality + "}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		r := Run(w, Policies[0])
		if moved[locality] = r.Moved; r.Left != 0 {
			t.Errorf("%s: %d tasks left", locality, r.Left)
		}
	}
	if moved["strict"] != 0 || moved["prefer"] == 0 || moved["any"] < moved["prefer"] {
		t.Errorf("moved %v", moved)
	}
}

func TestDeterministic(t *testing.T) {
	w, err := Builtin("even")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := Run(w, Policies[0]), Run(w, Policies[0]); !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\n%+v", a, b)
	}
}

func TestParse(t *testing.T) {
	const head = "version: 1\nhosts: [{class: cpu}]\n"
	for _, c := range []struct{ in, want string }{
		{"", "the workload is empty"},
		{"version: 2", "version must be 1, not 2"},
		{"version: 1", "the hosts have 0 devices; 1 to 10000 are needed"},
		{"version: 1\nhosts: [{slots: 1}]", "hosts 1: a device needs a class, and 1 to 1024 slots"},
		{head, "there are no jobs"},
		{"version: 1\nhosts: [{class: cpu, speed: 1000}]", "hosts 1: a speed is 0.01 to 100"},
		{head + "kernels: {k: {classes: {cpu: {rate: 1MB}}}}\njobs: [{kernel: k, locality: near}]", "job 1: locality is prefer, strict or any"},
		{head + "jobs: [{kernel: x}]", `job 1: there is no kernel "x"`},
		{head + "kernels: {k: {classes: {gpu: {rate: 1MB}}}}", "kernel k runs on no class that a host has"},
		{head + "kernels: {k: {classes: {cpu: {}}}}", "kernel k on cpu: a rate or a fixed time is needed"},
		{head + "kernels: {k: {classes: {cpu: {rate: fast}}}}", `line 3: "fast" is not a size such as 64MiB`},
		{head + "kernels: {k: {classes: {cpu: {fixed: 3}}}}", `line 3: "3" is not a time such as 90s`},
		{head + "kernels: {k: {classes: {cpu: {rate: 1MB}}}}\njobs: [{kernel: k, times: 3}]",
			"job 1: tasks, times and held are 1 or more, spread is 1 to 1000, and what comes more than once says every when"},
		{head + "bogus: 1", "unmarshal errors: line 3: field bogus not found in type sim.Workload"},
		{head + "kernels: {k: {classes: {cpu: {rate: 1MB}}}}\njobs: [{kernel: k, tasks: 2000000}]",
			"job 1: tasks, times and held are 1 or more, spread is 1 to 1000, and what comes more than once says every when"},
	} {
		if _, err := Parse([]byte(c.in)); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.in, err, c.want)
		}
	}
	if _, err := Builtin("none"); err == nil {
		t.Error("a workload that does not exist")
	}
	if _, err := PolicyNamed("none"); err == nil {
		t.Error("a policy that does not exist")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Builtins() {
		raw, err := builtin.ReadFile("workloads/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("version: 1\nhosts: [{class: a, count: 9999999999999}]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, err := Parse(raw)
		if (w == nil) == (err == nil) && err == nil {
			t.Error("neither a workload nor an error")
		}
	})
}
