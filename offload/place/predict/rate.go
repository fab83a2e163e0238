package predict

// Rate is a bandwidth that is measured again and again: bytes over seconds of
// the last transfers, each weighing half as much as one that is 16 younger. The
// zero value has measured nothing.
type Rate struct{ bytes, seconds float64 }

var fade = 0.9576 // 2^(-1/16)

// Observe takes over a transfer. One of no bytes or no time says nothing.
func (r *Rate) Observe(bytes, seconds float64) {
	if bytes <= 0 || seconds <= 0 {
		return
	}
	r.bytes = r.bytes*fade + bytes
	r.seconds = r.seconds*fade + seconds
}

// PerSecond is the rate in bytes a second; 0: not measured.
func (r Rate) PerSecond() float64 {
	if r.seconds == 0 {
		return 0
	}
	return r.bytes / r.seconds
}

// Losses is how often attempts are lost by no fault of their own, with fading
// weights as in Rate. The zero value expects one in a hundred.
type Losses struct{ lost, all float64 }

// Observe takes over the end of an attempt.
func (l *Losses) Observe(lost bool) {
	l.lost, l.all = l.lost*fade, l.all*fade+1
	if lost {
		l.lost++
	}
}

// Chance is the probability that the next attempt is lost, below 1.
func (l Losses) Chance() float64 { return min((l.lost+0.01)/(l.all+1), 0.9) }
