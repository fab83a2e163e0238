package sim

import (
	"slices"
	"time"
)

// Result is what came of a workload under a policy. Times are in seconds.
type Result struct {
	Policy   string       `json:"policy"`
	Tasks    int          `json:"tasks"`
	Left     int          `json:"tasks_left"` // that never ran
	Lost     int          `json:"attempts_lost"`
	Makespan float64      `json:"makespan_seconds"` // from the first arrival at 0 to the last end
	Sum      float64      `json:"sum_seconds"`      // over tasks, from arrival to end
	Moved    uint64       `json:"bytes_moved"`
	Busy     float64      `json:"slots_busy"`       // part of the slots' time
	Errors   [4]float64   `json:"prediction_error"` // median relative error of the run time, by quarters of the tasks as they finished
	Waiting  []UserResult `json:"waiting"`          // by user
}

// UserResult says how long the tasks of a user waited from arrival to start.
type UserResult struct {
	User   string  `json:"user"`
	Tasks  int     `json:"tasks"`
	Mean   float64 `json:"mean_seconds"`
	Median float64 `json:"median_seconds"`
	Max    float64 `json:"max_seconds"`
}

func (c *cluster) result() Result {
	r := Result{Policy: c.policy.Name, Tasks: len(c.finished), Lost: c.retries, Makespan: c.end.Seconds(), Moved: c.moved}
	for _, j := range c.jobs {
		r.Left += j.waiting.Len()
	}
	slots := 0
	for i := range c.agents {
		for k := range c.agents[i].Devices {
			slots += int(c.agents[i].Devices[k].Capacity.Slots)
		}
	}
	if c.end > 0 {
		r.Busy = c.busy.Seconds() / c.end.Seconds() / float64(slots)
	}
	for q := range r.Errors {
		var part []float64
		for _, f := range c.finished[q*len(c.finished)/4 : (q+1)*len(c.finished)/4] {
			part = append(part, f.error)
		}
		r.Errors[q] = median(part)
	}
	waits := map[string][]float64{}
	for _, s := range c.starts {
		waits[s.user] = append(waits[s.user], s.wait.Seconds())
		r.Sum += s.elapsed.Seconds()
	}
	for user, list := range waits {
		u := UserResult{User: user, Tasks: len(list), Median: median(list), Max: slices.Max(list)}
		for _, w := range list {
			u.Mean += w / float64(len(list))
		}
		r.Waiting = append(r.Waiting, u)
	}
	slices.SortFunc(r.Waiting, func(a, b UserResult) int { return cmpString(a.User, b.User) })
	return r
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// median of a list, which it sorts; 0 if it is empty.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// Duration is Makespan as a time.
func (r Result) Duration() time.Duration { return seconds(r.Makespan) }
