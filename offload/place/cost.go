package place

import (
	"time"

	"quernfs/offload/place/predict"
)

// Cost is what a task on a device is predicted to cost.
type Cost struct {
	Wait  time.Duration // until the device has room
	Fetch time.Duration // of the bytes that lie elsewhere
	Warm  time.Duration // 0 if the kernel is there already
	Run   time.Duration
	Write time.Duration // of the output
	Redo  time.Duration // the expected loss by attempts that are lost

	P95     time.Duration // of Run
	Missing uint64        // bytes to be fetched
	Source  predict.Source
}

// Total is T_ij: the time until the task ends.
func (c Cost) Total() time.Duration { return c.Wait + c.Busy() }

// Busy is how long the device is taken.
func (c Cost) Busy() time.Duration { return c.Fetch + c.Warm + c.Run + c.Write + c.Redo }

// Limit is when the attempt is late: the 95th percentile of Run in place of its
// median, and the rest as predicted.
func (c Cost) Limit() time.Duration { return c.Busy() - c.Redo - c.Run + c.P95 }

// Model has the rates of what has not been measured, in bytes a second; 0: it
// takes no time.
type Model struct {
	Network float64       // fetching from another host
	Process float64       // reading locally and computing
	Store   float64       // writing the output
	Start   time.Duration // of any task
}

// Default is the model before anything has been measured.
var Default = Model{Network: 100e6, Process: 50e6, Store: 100e6, Start: 20 * time.Millisecond}

// prior is what is believed of an alternative on a device before any task of it
// has finished there.
func (m Model) prior(alt *Alternative, d *Device) predict.Prior {
	p := predict.Prior{Hint: alt.Hint, Rate: d.Process, Guess: predict.Hint{Fixed: m.Start, Rate: m.Process}}
	if p.Hint != (predict.Hint{}) {
		p.Hint.Fixed += m.Start
	}
	return p
}

// Prior is what is believed of a run before any task has finished: to be given
// to Predictor.Observe.
func (m Model) Prior(alt Alternative, d Device) predict.Prior { return m.prior(&alt, &d) }

// estimate is the cost without Wait. fit is of the alternative's kernel on the
// device's class.
func (m Model) estimate(t *Task, alt *Alternative, a *Agent, d *Device, fit predict.Fit) Cost {
	var c Cost
	e := fit.Predict(t.Bytes, m.prior(alt, d))
	c.Run, c.P95, c.Source = e.Median, e.P95, e.Source
	if d.Speed > 0 {
		c.Run, c.P95 = scaled(c.Run, 1/d.Speed), scaled(c.P95, 1/d.Speed)
	}
	c.Missing = t.Bytes - t.held(a.Host)
	c.Fetch = m.fetch(t, a, c.Missing)
	if !d.Warm[alt.Kernel] {
		c.Warm = alt.WarmUp
	}
	c.Write = span(t.Output, rate(a.Store, m.Store))
	if a.Lost > 0 {
		// Lost with chance p, again and again, and noticed at its end at worst.
		p := min(a.Lost, 0.9)
		c.Redo = time.Duration(float64(c.Busy()) * p / (1 - p))
	}
	return c
}

// fetch is how long the missing bytes are on the way. Each host sends the part
// that it holds; what lies on none that is known comes at the agent's rate.
func (m Model) fetch(t *Task, a *Agent, missing uint64) time.Duration {
	usual := rate(a.Network, m.Network)
	if len(a.From) == 0 || missing == 0 {
		return span(missing, usual)
	}
	elsewhere := uint64(0)
	for _, h := range t.Local {
		if h.Host != a.Host {
			elsewhere += h.Bytes
		}
	}
	var took time.Duration
	left := missing
	for _, h := range t.Local {
		if h.Host == a.Host || h.Bytes == 0 {
			continue
		}
		part := min(left, uint64(float64(missing)*float64(h.Bytes)/float64(max(elsewhere, missing))))
		left -= part
		took += span(part, rate(a.From[h.Host], usual))
	}
	return took + span(left, usual)
}

func rate(measured, otherwise float64) float64 {
	if measured > 0 {
		return measured
	}
	return otherwise
}

// scaled is d times factor.
func scaled(d time.Duration, factor float64) time.Duration {
	return time.Duration(min(float64(d)*factor, 1e18))
}

// AtUnitSpeed is how long a run of d on the device would have taken on one of its
// class whose speed is 1: what Predictor.Observe is to be given.
func (d *Device) AtUnitSpeed(ran time.Duration) time.Duration {
	if d.Speed > 0 {
		return scaled(ran, d.Speed)
	}
	return ran
}

// span is how long so many bytes take; 0 at a rate of 0.
func span(bytes uint64, perSecond float64) time.Duration {
	if bytes == 0 || perSecond <= 0 {
		return 0
	}
	s := float64(bytes) / perSecond
	if s > 1e9 {
		s = 1e9
	}
	return time.Duration(s * float64(time.Second))
}
