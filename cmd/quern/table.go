package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// table prints rows under a header, in columns that fit.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, header ...any) *table {
	t := &table{tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)}
	t.row(header...)
	return t
}

func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, c)
	}
	fmt.Fprintln(t.w)
}

func (t *table) flush() error { return t.w.Flush() }

// size is a number of bytes for people: 3.2 GiB.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}

// ago says how long before now a time (nanoseconds since the epoch) was.
func ago(now time.Time, ns int64) string {
	if ns == 0 {
		return "never"
	}
	d := now.Sub(time.Unix(0, ns))
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h", int(d.Hours()))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
