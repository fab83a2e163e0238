package predict

import "math"

type sample struct{ bytes, seconds, believed float64 }

// series is the last tasks of one key.
type series struct {
	ring   [window]sample
	total  int    // tasks so far
	used   uint64 // when the last came, by the predictor's count
	known  Fit
	fitted int // total when known was made
}

func (s *series) add(x sample) {
	s.ring[s.total%window] = x
	s.total++
}

// at returns the k-th youngest sample, and its weight.
func (s *series) at(k int) (sample, float64) {
	return s.ring[(s.total-1-k)%window], math.Exp2(-float64(k) / halfLife)
}

// fit returns the fit, made anew when there are enough new tasks: at first
// after each, later after every eighth of the window.
func (s *series) fit() Fit {
	if s.fitted == 0 || s.total-s.fitted >= min(1+s.fitted/8, window/8) {
		s.known, s.fitted = s.compute(), s.total
	}
	return s.known
}

func (s *series) compute() Fit {
	n := min(s.total, window)
	f := Fit{Tasks: s.total}
	least, most := math.Inf(1), 0.0
	for k := range n {
		x, _ := s.at(k)
		least, most = min(least, x.bytes), max(most, x.bytes)
	}
	values := make([]weighted, 0, n*n/2)
	if n < lineFrom || most <= least*1.1 {
		for k := range n {
			x, w := s.at(k)
			values = append(values, weighted{x.seconds / x.believed, w})
		}
		f.Scale = quantile(values, 0.5)
	} else {
		for i := range n {
			a, wa := s.at(i)
			for j := range i {
				if b, wb := s.at(j); a.bytes != b.bytes {
					apart := math.Abs(a.bytes-b.bytes) / (a.seconds + b.seconds)
					values = append(values, weighted{(a.seconds - b.seconds) / (a.bytes - b.bytes), wa * wb * apart})
				}
			}
		}
		f.PerByte = max(0, quantile(values, 0.5))
		values = values[:0]
		for k := range n {
			x, w := s.at(k)
			values = append(values, weighted{x.seconds - f.PerByte*x.bytes, w / x.seconds})
		}
		if f.Fixed = quantile(values, 0.5); f.Fixed < 0 {
			// A line through nothing at zero: the median of the rates.
			f.Fixed = 0
			values = values[:0]
			for k := range n {
				if x, w := s.at(k); x.bytes > 0 {
					values = append(values, weighted{x.seconds / x.bytes, w})
				}
			}
			f.PerByte = quantile(values, 0.5)
		}
	}
	values = values[:0]
	for k := range n {
		x, w := s.at(k)
		fitted := f.Fixed + f.PerByte*x.bytes
		if f.Scale != 0 {
			fitted = f.Scale * x.believed
		}
		values = append(values, weighted{x.seconds / max(fitted, leastRun), w})
	}
	// Of few tasks the 95th percentile is not seen yet: it is taken to lie beyond
	// the slowest by so much.
	f.Tail = max(1, quantile(values, 0.95)) * (1 + 3/float64(n+2))
	return f
}
