package predict

import (
	"cmp"
	"slices"
	"time"
)

// Key is what run times are learned for.
type Key struct {
	Kernel string // digest of the variant
	Class  string // of device
}

// Source says where an estimate comes from.
type Source uint8

// The sources, the best first.
const (
	Learned   Source = iota + 1 // finished tasks
	Hinted                      // the kernel's manifest
	Bandwidth                   // what was measured of the device
	Guessed                     // nothing is known: one task should find out
)

func (s Source) String() string {
	switch s {
	case Learned:
		return "learned"
	case Hinted:
		return "hint"
	case Bandwidth:
		return "bandwidth"
	case Guessed:
		return "guess"
	}
	return "unknown"
}

// Hint is what a manifest says of a kernel's run time; zero: nothing.
type Hint struct {
	Fixed time.Duration
	Rate  float64 // bytes a second; 0: the time does not depend on bytes
}

// Prior is what is believed before any task has finished.
type Prior struct {
	Hint  Hint
	Rate  float64 // bytes a second that the device was measured to process; 0: not measured
	Guess Hint    // if nothing else is known
}

// Estimate is a predicted run time.
type Estimate struct {
	Median time.Duration
	P95    time.Duration // never below Median
	Source Source
	Tasks  int // finished tasks behind it
}

// Limits of what a Predictor keeps.
const (
	window   = 64   // tasks of a key
	halfLife = 16.0 // tasks, after which a weight has halved
	maxKeys  = 4096
	lineFrom = 4 // tasks, before which no line is fitted
)

// How wide an estimate is taken to be before the tasks show it.
const (
	hintedTail  = 3
	measureTail = 5
	guessedTail = 10
)

// Predictor learns from finished tasks. One goroutine at a time may use it. The
// zero value knows nothing.
type Predictor struct {
	series map[Key]*series
	clock  uint64 // observations so far
}

// Observe takes over a finished task: the bytes that it read, how long it ran,
// and what was believed of it.
func (p *Predictor) Observe(k Key, bytes uint64, ran time.Duration, prior Prior) {
	if ran <= 0 {
		return
	}
	s := p.series[k]
	if s == nil {
		if p.series == nil {
			p.series = map[Key]*series{}
		}
		if len(p.series) >= maxKeys {
			p.forget()
		}
		s = new(series)
		p.series[k] = s
	}
	p.clock++
	s.used = p.clock
	s.add(sample{float64(bytes), ran.Seconds(), prior.seconds(bytes)})
}

// forget drops the key whose last task finished the longest ago.
func (p *Predictor) forget() {
	var oldest Key
	least := uint64(0)
	for k, s := range p.series {
		if least == 0 || s.used < least {
			oldest, least = k, s.used
		}
	}
	delete(p.series, oldest)
}

// Tasks is how many finished tasks stand behind a key.
func (p *Predictor) Tasks(k Key) int {
	if s := p.series[k]; s != nil {
		return s.total
	}
	return 0
}

// Fit is what is known of a key now; it does not change when the Predictor
// learns more.
func (p *Predictor) Fit(k Key) Fit {
	s := p.series[k]
	if s == nil {
		return Fit{}
	}
	return s.fit()
}

// Fit predicts for one kernel and class. The zero value has seen no task.
type Fit struct {
	Tasks   int
	Fixed   float64 // seconds
	PerByte float64 // seconds
	Scale   float64 // if not 0: in place of the line, what is believed is scaled by this
	Tail    float64 // 95th percentile of measured over fitted
}

// Predict estimates the run time for so many bytes.
func (f Fit) Predict(bytes uint64, prior Prior) Estimate {
	if f.Tasks == 0 {
		e := Estimate{Source: prior.source()}
		s := prior.seconds(bytes)
		e.Median = seconds(s)
		switch e.Source {
		case Hinted:
			e.P95 = seconds(s * hintedTail)
		case Bandwidth:
			e.P95 = seconds(s * measureTail)
		default:
			e.P95 = seconds(s * guessedTail)
		}
		return e
	}
	s := f.Fixed + f.PerByte*float64(bytes)
	if f.Scale != 0 {
		s = f.Scale * prior.seconds(bytes)
	}
	return Estimate{Median: seconds(s), P95: seconds(s * max(f.Tail, 1)), Source: Learned, Tasks: f.Tasks}
}

// leastRun is the shortest time that is predicted, in seconds.
const leastRun = 1e-4

func (p Prior) source() Source {
	switch {
	case p.Hint != Hint{}:
		return Hinted
	case p.Rate > 0:
		return Bandwidth
	}
	return Guessed
}

func (p Prior) seconds(bytes uint64) float64 {
	switch p.source() {
	case Hinted:
		return p.Hint.seconds(bytes)
	case Bandwidth:
		return max(p.Guess.Fixed.Seconds()+float64(bytes)/p.Rate, leastRun)
	}
	return p.Guess.seconds(bytes)
}

func (h Hint) seconds(bytes uint64) float64 {
	s := h.Fixed.Seconds()
	if h.Rate > 0 {
		s += float64(bytes) / h.Rate
	}
	return max(s, leastRun)
}

// longest is the greatest duration that is predicted: what lies beyond cannot
// be told apart.
const longest = 1000 * 24 * time.Hour

func seconds(s float64) time.Duration {
	if !(s < longest.Seconds()) {
		return longest
	}
	return time.Duration(s * float64(time.Second))
}

// Quantile is the weighted q-quantile of values, 0 ≤ q ≤ 1. It sorts its
// argument.
func quantile(values []weighted, q float64) float64 {
	slices.SortFunc(values, func(a, b weighted) int { return cmp.Compare(a.value, b.value) })
	total := 0.0
	for _, v := range values {
		total += v.weight
	}
	sum := 0.0
	for _, v := range values {
		if sum += v.weight; sum >= q*total {
			return v.value
		}
	}
	return values[len(values)-1].value
}

type weighted struct{ value, weight float64 }
