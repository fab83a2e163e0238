package offload

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// Explanation says of the tasks of a job where they run or would go, and what
// that was chosen from.
type Explanation struct {
	Job   *wire.Job
	Tasks []*wire.Task      // all of the job; those without Placement have not been looked at
	Names map[uint32]string // of nodes
	Why   string            // what keeps the tasks back that wait, besides hosts that are busy; "": nothing
}

// Explain explains a job. ref is its number or its name. What was decided of tasks
// that have started is in their records; of those that wait the leader's
// scheduler is asked.
func Explain(ctx context.Context, m Meta, ref string) (*Explanation, error) {
	job, tasks, err := GetJob(ctx, m, ref)
	if err != nil {
		return nil, err
	}
	return explain(ctx, m, job, tasks)
}

func explain(ctx context.Context, m Meta, job *wire.Job, tasks []*wire.Task) (*Explanation, error) {
	e := &Explanation{Job: job, Tasks: tasks, Names: map[uint32]string{}}
	ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ListNodes{ListNodes: &wire.ListNodes{}}})
	if err != nil {
		return nil, err
	}
	for _, n := range ans.GetNodes().GetNodes() {
		e.Names[n.GetNode().GetId()] = n.GetNode().GetName()
	}
	waiting, err := ahead(ctx, m, job)
	if err != nil {
		return nil, err
	}
	for _, x := range tasks {
		if w := waiting[x.N]; w.GetPlacement() != nil && x.State == StatePending {
			x.Placement = w.Placement
		}
		if w := waiting[x.N]; w.GetReason() != "" && x.State == StatePending {
			e.Why = w.Reason
		}
	}
	return e, nil
}

// ahead asks the leader where tasks of a job that wait would go, by number, and
// what keeps them back. What is not known is not there.
func ahead(ctx context.Context, m Meta, job *wire.Job) (map[uint32]*wire.Task, error) {
	out := map[uint32]*wire.Task{}
	if Ended(job.State) {
		return out, nil
	}
	ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ExplainJob{ExplainJob: &wire.ExplainJob{Id: job.Id}}})
	if err != nil && !errors.Is(err, wire.Unsupported) && !errors.Is(err, wire.Unavailable) {
		return nil, err
	}
	for _, x := range ans.GetJobs().GetTasks() {
		out[x.N] = x
	}
	return out, nil
}

// waitText says when the first of a pending job's tasks is expected to start, and
// what keeps the tasks of one back that says where they may run; "" if that is not
// known, or at once.
func waitText(ctx context.Context, m Meta, job *wire.Job) (string, error) {
	if job.State == StateRunning {
		spec, err := jobfile.Parse(job.Spec)
		if err != nil || !spec.Bound() && !spec.Gang && spec.Locality != jobfile.Strict {
			return "", nil
		}
	} else if job.State != StatePending {
		return "", nil
	}
	waiting, err := ahead(ctx, m, job)
	if err != nil || len(waiting) == 0 {
		return "", err
	}
	hosts := map[uint32]bool{}
	least, why := uint64(math.MaxUint64), ""
	for _, w := range waiting {
		for _, x := range w.GetPlacement().GetPlaces() {
			hosts[x.Node] = true
		}
		if p := w.Placement; int(p.GetChosen()) < len(p.GetPlaces()) {
			least = min(least, p.Places[p.Chosen].WaitUs)
		}
		why = cmp.Or(why, w.Reason)
	}
	known := least != 0 && least != math.MaxUint64
	about := ""
	if known {
		about = fmt.Sprintf(", about %s", max(micros(least), time.Second).Round(time.Second))
	}
	switch {
	case why != "" && least != 0:
		return "; " + why + about, nil
	case known && job.State == StatePending:
		return "; " + isAreHosts(len(hosts)) + " busy" + about, nil
	}
	return "", nil
}

func isAreHosts(n int) string {
	if n == 1 {
		return "the host that can run it is"
	}
	return fmt.Sprintf("the %d best hosts are", n)
}

// Name is a place for people: HOST/DEVICE.
func (e *Explanation) Name(p *wire.Place) string {
	return cmp.Or(e.Names[p.Node], fmt.Sprint("node ", p.Node)) + "/" + cmp.Or(p.Device, "cpu")
}

// PlaceTotal is when a task was predicted to end at a place, from the decision.
func PlaceTotal(p *wire.Place) time.Duration {
	return micros(p.WaitUs + p.FetchUs + p.WarmUs + p.RunUs + p.WriteUs + p.RedoUs)
}

// PlaceLate is the time from its start after which an attempt is late: the 95th
// percentile of its run.
func PlaceLate(p *wire.Place) time.Duration {
	return micros(p.FetchUs + p.WarmUs + p.P95Us + p.WriteUs)
}

func micros(us uint64) time.Duration { return time.Duration(us) * time.Microsecond }

// Write prints the table of each task that has one, up to most tasks. only: of
// this task (-1: all).
func (e *Explanation) Write(w io.Writer, most int, only int64) error {
	shown, unseen, more := 0, 0, 0
	if e.Why != "" {
		fmt.Fprintln(w, e.Why)
	}
	for _, x := range e.Tasks {
		switch {
		case only >= 0 && only != int64(x.N):
		case x.Placement == nil || len(x.Placement.Places) == 0:
			unseen++
		case shown == most:
			more++
		default:
			shown++
			if err := e.task(w, x); err != nil {
				return err
			}
		}
	}
	if unseen > 0 {
		fmt.Fprintf(w, "%s not looked at yet: those before them take what is free\n", isAre(unseen))
	}
	if more > 0 {
		fmt.Fprintf(w, "and %s: quern job explain shows them all\n", count(more, "more task"))
	}
	return nil
}

func isAre(n int) string {
	if n == 1 {
		return "1 task is"
	}
	return fmt.Sprintf("%d tasks are", n)
}

func (e *Explanation) task(w io.Writer, x *wire.Task) error {
	p := x.Placement
	chosen := p.Places[min(int(p.Chosen), len(p.Places)-1)]
	switch {
	case p.Waits:
		fmt.Fprintf(w, "task %d waits for %s: about %s\n", x.N, e.Name(chosen), short(micros(chosen.WaitUs)))
	case p.Probe:
		fmt.Fprintf(w, "task %d is on %s to find out how long it takes there\n", x.N, e.Name(chosen))
	default:
		fmt.Fprintf(w, "task %d on %s, attempt %d %s: expected to take %s, late after %s", x.N, e.Name(chosen), x.Attempt, x.State,
			short(PlaceTotal(chosen)-micros(chosen.WaitUs)), short(PlaceLate(chosen)))
		if t := elapsed(x.StartedNs, x.EndedNs, time.Now()); Ended(x.State) && t > 0 {
			fmt.Fprintf(w, "; took %s", short(t))
		}
		fmt.Fprintln(w)
		if s := x.Second; s != nil {
			fmt.Fprintf(w, "  it is late: attempt %d runs on %s beside it\n", s.Attempt, cmp.Or(e.Names[s.Agent], fmt.Sprint("node ", s.Agent)))
		}
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, " \tPLACE\tRUNTIME\tWAIT\tFETCH\tWARM-UP\tRUN\tOUTPUT\tREDO\tTOTAL\tMISSING\tRUN FROM\t")
	for i, r := range p.Places {
		mark := " "
		if i == int(p.Chosen) {
			mark = "*"
		}
		from := r.Source
		if r.Avoid {
			from += ", failed there"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", mark, e.Name(r), r.Runtime, short(micros(r.WaitUs)), short(micros(r.FetchUs)),
			short(micros(r.WarmUs)), short(micros(r.RunUs)), short(micros(r.WriteUs)), short(micros(r.RedoUs)), short(PlaceTotal(r)), size(r.Missing), from)
	}
	return t.Flush()
}

// short is a time in three digits or so.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d.Microseconds())/1000)
	case d < 100*time.Second:
		return fmt.Sprintf("%.3gs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// planCosts is what jobs/ID/plan says of costs.
func planCosts(ctx context.Context, m Meta, job *wire.Job, tasks []*wire.Task) (string, error) {
	const most = 100
	e, err := explain(ctx, m, job, tasks)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	b.WriteString("\nThe places that were compared, * the one chosen:\n")
	if err := e.Write(&b, most, -1); err != nil {
		return "", err
	}
	return b.String(), nil
}
