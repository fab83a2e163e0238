package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/offload"
)

// explainInfo is what --json prints. Fields are only ever added.
type explainInfo struct {
	ID    uint64            `json:"id"`
	Name  string            `json:"name"`
	State string            `json:"state"`
	Why   string            `json:"why,omitempty"` // tasks wait, besides for hosts that are busy
	Tasks []explainTaskInfo `json:"tasks"`
}

type explainTaskInfo struct {
	N       uint32      `json:"n"`
	Phase   string      `json:"phase"`
	State   string      `json:"state"`
	Attempt uint32      `json:"attempt"`
	Seconds float64     `json:"seconds,omitempty"` // that it took, once it has ended
	Waits   bool        `json:"waits"`
	Probe   bool        `json:"probe,omitempty"`
	Chosen  *placeInfo  `json:"chosen,omitempty"`
	Places  []placeInfo `json:"places"`
}

type placeInfo struct {
	Place   string  `json:"place"` // HOST/DEVICE
	Runtime string  `json:"runtime"`
	Wait    float64 `json:"wait_seconds"`
	Fetch   float64 `json:"fetch_seconds"`
	WarmUp  float64 `json:"warm_up_seconds"`
	Run     float64 `json:"run_seconds"`
	P95     float64 `json:"run_p95_seconds"`
	Output  float64 `json:"output_seconds"`
	Redo    float64 `json:"redo_seconds"`
	Total   float64 `json:"total_seconds"`
	Missing uint64  `json:"missing_bytes"`
	Source  string  `json:"run_from"`
	Failed  bool    `json:"failed_there,omitempty"`
}

func placeOf(e *offload.Explanation, p *wire.Place) placeInfo {
	s := func(us uint64) float64 { return float64(us) / 1e6 }
	return placeInfo{
		Place: e.Name(p), Runtime: p.GetRuntime(), Wait: s(p.GetWaitUs()), Fetch: s(p.GetFetchUs()), WarmUp: s(p.GetWarmUs()), Run: s(p.GetRunUs()),
		P95: s(p.GetP95Us()), Output: s(p.GetWriteUs()), Redo: s(p.GetRedoUs()), Total: offload.PlaceTotal(p).Seconds(),
		Missing: p.GetMissing(), Source: p.GetSource(), Failed: p.GetAvoid(),
	}
}

func explainOf(e *offload.Explanation, only int64) explainInfo {
	info := explainInfo{ID: e.Job.GetId(), Name: e.Job.GetName(), State: e.Job.GetState(), Why: e.Why, Tasks: []explainTaskInfo{}}
	for _, x := range e.Tasks {
		if only >= 0 && only != int64(x.GetN()) {
			continue
		}
		p := x.GetPlacement()
		t := explainTaskInfo{
			N: x.GetN(), Phase: x.GetPhase(), State: x.GetState(), Attempt: x.GetAttempt(), Waits: p.GetWaits(), Probe: p.GetProbe(), Places: []placeInfo{},
		}
		if x.GetEndedNs() > x.GetStartedNs() && x.GetStartedNs() != 0 {
			t.Seconds = time.Duration(x.GetEndedNs() - x.GetStartedNs()).Seconds()
		}
		for i, r := range p.GetPlaces() {
			t.Places = append(t.Places, placeOf(e, r))
			if i == int(p.GetChosen()) {
				t.Chosen = &t.Places[i]
			}
		}
		if t.Chosen != nil { // the slice may have moved while it grew
			t.Chosen = &t.Places[p.GetChosen()]
		}
		info.Tasks = append(info.Tasks, t)
	}
	return info
}

func newJobExplain() *cobra.Command {
	task := int64(-1)
	cmd := withJobs(&cobra.Command{
		Use: "explain JOB", Short: "Show why the tasks of a job run where they do, or wait",
		Long: `Show why the tasks of a job run where they do, or wait: for each task the places
that were compared, the best first, and what it was predicted to cost at each. *
marks the one that was chosen. The total is from the decision to the task's end:

  wait      until the place has room
  fetch     of the bytes that lie on other hosts (missing)
  warm-up   until the kernel can begin; 0 where it has run before
  run       for so many bytes; "run from" says by what: learned from finished
            tasks, the manifest's hint, the device's measured bandwidth, a guess
  output    writing the result
  redo      expected for attempts that hosts lose`,
		Example: `  quern job explain top --data ~/quern
  quern job explain 7 --task 3 --json --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
		e, err := offload.Explain(ctx, c, args[0])
		if err != nil {
			return err
		}
		if task >= int64(len(e.Tasks)) {
			return fmt.Errorf("job %d has %d tasks, the first is 0", e.Job.GetId(), len(e.Tasks))
		}
		if asJSON {
			return printJSON(out, explainOf(e, task))
		}
		fmt.Fprintf(out, "job %d, %s: %s (%s)\n\n", e.Job.GetId(), e.Job.GetName(), e.Job.GetState(), e.Job.GetReason())
		return e.Write(out, math.MaxInt, task)
	})
	cmd.Flags().Int64Var(&task, "task", -1, "only this task; -1: all")
	return cmd
}
