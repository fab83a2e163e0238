package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// report is the table that is being filled: a row for each thing measured, a
// column for each system.
type report struct {
	order []string
	rows  map[string]*row
}

type row struct {
	values map[string]float64
	lower  bool // less is better
}

func newReport() *report { return &report{rows: map[string]*row{}} }

func (r *report) highest(system, what string, v float64) { r.put(system, what, v, false) }
func (r *report) lowest(system, what string, v float64)  { r.put(system, what, v, true) }

// put keeps the best value of several rounds.
func (r *report) put(system, what string, v float64, lower bool) {
	w := r.rows[what]
	if w == nil {
		w = &row{values: map[string]float64{}, lower: lower}
		r.rows[what] = w
		r.order = append(r.order, what)
	}
	if old, ok := w.values[system]; !ok || (v < old) == lower {
		w.values[system] = v
	}
}

// table is the report in Markdown. The last columns say how many times as fast
// as the others quern is; below 1 it is slower.
func (r *report) table(systems []string) string {
	var b strings.Builder
	head, line := "| |", "|---|"
	for _, s := range systems {
		head += " " + s + " |"
		line += "---:|"
	}
	for _, s := range systems {
		if s != "quern" {
			head += " quern ÷ " + s + " |"
			line += "---:|"
		}
	}
	fmt.Fprintf(&b, "%s\n%s\n", head, line)
	for _, what := range r.order {
		w := r.rows[what]
		fmt.Fprintf(&b, "| %s |", what)
		for _, s := range systems {
			if v, ok := w.values[s]; ok {
				fmt.Fprintf(&b, " %s |", number(v))
			} else {
				b.WriteString(" |")
			}
		}
		quern, have := w.values["quern"]
		for _, s := range systems {
			if s == "quern" {
				continue
			}
			v, ok := w.values[s]
			ratio := quern / v
			if w.lower {
				ratio = v / quern
			}
			if !ok || !have || v <= 0 || quern <= 0 {
				b.WriteString(" |")
				continue
			}
			fmt.Fprintf(&b, " %.2f |", ratio)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// meter times pieces of work on one system.
type meter struct {
	sys  *system
	rep  *report
	name string
}

// usage is the processor time of the server, of this program and of the
// programs that it has run.
func (m *meter) usage() time.Duration {
	total := m.sys.cpu()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) != nil {
			continue
		}
		if who == syscall.RUSAGE_CHILDREN {
			// Servers that have ended are among the children, and counted by cpu.
			total -= m.sys.cpuBefore
		}
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total
}

// time runs f and returns how long it took and what processor time it cost.
func (m *meter) time(f func() error) (took, cpu time.Duration, err error) {
	used := m.usage()
	began := time.Now()
	err = f()
	took = time.Since(began)
	return took, m.usage() - used, err
}

// bytes reports a transfer: MiB/s, and processor seconds for each GiB.
func (m *meter) bytes(what string, n int64, f func() error) error {
	took, cpu, err := m.time(f)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	m.rep.highest(m.name, what+", MiB/s", float64(n)/(1<<20)/took.Seconds())
	m.rep.lowest(m.name, what+", CPU s/GiB", cpu.Seconds()/(float64(n)/(1<<30)))
	return nil
}

// ops reports operations: how many a second, and processor microseconds for
// each.
func (m *meter) ops(what string, f func() (int, error)) error {
	var n int
	took, cpu, err := m.time(func() (err error) { n, err = f(); return err })
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	m.rep.highest(m.name, what+", 1/s", float64(n)/took.Seconds())
	m.rep.lowest(m.name, what+", CPU µs", float64(cpu.Microseconds())/float64(max(n, 1)))
	return nil
}

// seconds reports how long something takes as a whole.
func (m *meter) seconds(what string, f func() error) error {
	took, cpu, err := m.time(f)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	m.rep.lowest(m.name, what+", s", took.Seconds())
	m.rep.lowest(m.name, what+", CPU s", cpu.Seconds())
	return nil
}
