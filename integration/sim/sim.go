package sim

import (
	"fmt"
	"strings"
	"time"

	"quernfs/integration/linear"
)

// Report says what a simulation has done and found.
type Report struct {
	Seed       uint64
	Simulated  time.Duration
	Operations int64
	Unanswered int64
	Messages   int
	Scrubbed   int64    // shards read and verified
	Wrong      []string // what must not happen and has

	// History is judged outside of the bubble: see Judge.
	History *linear.Recorder
}

// Run simulates a cluster. It is to be called within a bubble of
// testing/synctest, and returns when everything that it started has ended.
func Run(cfg Config) *Report {
	c := newCluster(cfg)
	w := &workload{c: c, history: linear.NewRecorder(), ids: map[*session]*identity{}, writers: make([]*journal, cfg.Clients)}
	if err := c.start(); err != nil {
		c.violation("start: %v", err)
	} else if err := w.open(); err != nil {
		c.violation("make the journals: %v", err)
	} else {
		f := &faults{c: c, w: w, rnd: stream(cfg.Seed, "faults")}
		for round := range cfg.Rounds {
			c.round(round, w, f)
			if len(c.wrong) > 0 {
				break
			}
		}
	}
	c.close()
	r := &Report{
		Seed: cfg.Seed, Simulated: time.Since(c.began), Operations: w.ops.Load(), Unanswered: w.failed.Load(),
		Messages: c.net.sent, Scrubbed: c.scrubbed, History: w.history,
	}
	r.Wrong = c.wrong
	return r
}

// round is a while with faults, and what must be true after it.
func (c *cluster) round(round int, w *workload, f *faults) {
	if err := w.prepare(round); err != nil {
		c.violation("round %d cannot begin in a whole cluster: %v", round, err)
		return
	}
	w.begin(round)
	f.run(c.cfg.Round)
	time.Sleep(10 * time.Second) // some work without faults
	w.end()
	for _, m := range c.clients {
		if s := m.now(); s != nil {
			w.me(s, m.slot)
		}
	}
	for _, d := range w.doubts {
		if !d.cleared() {
			c.violation("a client whose writer had not lost its session reads %v", d.wrong)
		}
	}
	w.doubts = nil
	c.settle()
	c.checkLeases()
	c.checkAll(w)
}

// close ends everything.
func (c *cluster) close() {
	for _, m := range c.clients {
		if m.now() != nil {
			m.crash(false)
		}
	}
	for _, s := range c.servers {
		if s.run != nil {
			s.crash(false)
		}
	}
	for _, m := range c.members {
		if m.meta != nil {
			m.crash(false)
		}
	}
	c.ends.Wait()
}

// Judge judges the history of names, contents and locks, each partition for at
// most limit of real time, and adds what it finds to Wrong. It must not be
// called within a bubble, where no real time passes.
func (r *Report) Judge(limit time.Duration) linear.Verdict {
	v := r.History.Check(limit)
	for _, h := range v.Wrong {
		r.Wrong = append(r.Wrong, "no order explains the history of "+h)
	}
	return v
}

func (r *Report) String() string {
	s := fmt.Sprintf("seed %d: %v simulated, %d operations (%d without an answer), %d messages, %d shards verified",
		r.Seed, r.Simulated.Round(time.Second), r.Operations, r.Unanswered, r.Messages, r.Scrubbed)
	if len(r.Wrong) > 0 {
		s += "\n" + strings.Join(r.Wrong, "\n")
	}
	return s
}
