package predict

import (
	"math"
	"math/rand"
	"testing"
	"time"
)

func seeded(t testing.TB) *rand.Rand {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

var guess = Prior{Guess: Hint{Fixed: 20 * time.Millisecond, Rate: 50e6}}

func TestPriors(t *testing.T) {
	for _, c := range []struct {
		name   string
		prior  Prior
		source Source
		median time.Duration
	}{
		{"nothing", guess, Guessed, time.Second + 20*time.Millisecond},
		{"measured", Prior{Rate: 100e6, Guess: guess.Guess}, Bandwidth, 520 * time.Millisecond},
		{"hint of a rate", Prior{Hint: Hint{Rate: 25e6}, Rate: 100e6}, Hinted, 2 * time.Second},
		{"hint of a time", Prior{Hint: Hint{Fixed: 7 * time.Second}, Guess: guess.Guess}, Hinted, 7 * time.Second},
	} {
		e := Fit{}.Predict(50e6, c.prior)
		if e.Source != c.source || e.Median != c.median || e.P95 < 2*e.Median || e.Tasks != 0 {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}

// TestOneTask: one finished task scales what was believed, for other sizes too.
func TestOneTask(t *testing.T) {
	var p Predictor
	k := Key{"k", "cpu"}
	prior := Prior{Hint: Hint{Rate: 10e6}}
	p.Observe(k, 10e6, 2*time.Second, prior) // believed to take 1 s
	e := p.Fit(k).Predict(50e6, prior)
	if e.Source != Learned || e.Tasks != 1 || e.Median.Round(time.Millisecond) != 10*time.Second || e.P95 <= e.Median {
		t.Errorf("%+v", e)
	}
	if other := p.Fit(Key{"k", "gpu"}).Predict(50e6, prior); other.Source != Hinted || other.Median != 5*time.Second {
		t.Errorf("another class learned from it: %+v", other)
	}
}

// TestLine: the fit finds the line in noise with stragglers, the 95th percentile
// covers about 95 % of further tasks, and follows a change.
func TestLine(t *testing.T) {
	rnd := seeded(t)
	for range 20 {
		var p Predictor
		k := Key{"k", "cpu"}
		fixed, perByte := 0.1+rnd.Float64(), (1+9*rnd.Float64())*1e-8
		run := func(bytes float64) float64 {
			s := (fixed + perByte*bytes) * math.Exp(0.1*rnd.NormFloat64())
			if rnd.Intn(20) == 0 {
				s *= 5
			}
			return s
		}
		for range 200 {
			bytes := 1e6 + 200e6*rnd.Float64()
			p.Observe(k, uint64(bytes), seconds(run(bytes)), guess)
		}
		f := p.Fit(k)
		// At the lower end of what was seen the stragglers weigh more.
		for bytes, most := range map[float64]float64{5e6: 3, 50e6: 1.4, 200e6: 1.4} {
			want, got := fixed+perByte*bytes, f.Predict(uint64(bytes), guess)
			if off := got.Median.Seconds() / want; off > most || off < 1/most {
				t.Errorf("%v bytes: %v, the median is %.3f s", bytes, got.Median, want)
			}
			if got.P95 < got.Median {
				t.Errorf("%+v", got)
			}
		}
		below := 0
		for range 1000 {
			bytes := 1e6 + 200e6*rnd.Float64()
			if run(bytes) <= f.Predict(uint64(bytes), guess).P95.Seconds() {
				below++
			}
		}
		if below < 750 { // of so few the fit may be some way off
			t.Errorf("%d of 1000 tasks are below the 95th percentile", below)
		}
		// The device becomes twice as slow.
		fixed, perByte = 2*fixed, 2*perByte
		for range 40 {
			bytes := 1e6 + 200e6*rnd.Float64()
			p.Observe(k, uint64(bytes), seconds(run(bytes)), guess)
		}
		want, got := fixed+perByte*100e6, p.Fit(k).Predict(100e6, guess).Median.Seconds()
		if math.Abs(got/want-1) > 0.25 {
			t.Errorf("after a change: %.3f s, the median is %.3f s", got, want)
		}
	}
}

// TestOdd: what has no sense does no harm.
func TestOdd(t *testing.T) {
	rnd := seeded(t)
	var p Predictor
	k := Key{}
	p.Observe(k, 1, 0, guess)
	p.Observe(k, 1, -time.Second, guess)
	if p.Tasks(k) != 0 {
		t.Error("a task without a time was taken")
	}
	for range 300 {
		p.Observe(k, rnd.Uint64()>>uint(rnd.Intn(64)), time.Duration(1+rnd.Int63()>>uint(rnd.Intn(62))), guess)
		e := p.Fit(k).Predict(rnd.Uint64(), guess)
		if e.Median < 0 || e.P95 < e.Median || e.P95 > longest {
			t.Fatalf("%+v", e)
		}
	}
}

func TestForget(t *testing.T) {
	var p Predictor
	for i := range maxKeys + 10 {
		p.Observe(Key{Kernel: string(rune(i + 1000))}, 1, time.Second, guess)
	}
	if len(p.series) != maxKeys || p.Tasks(Key{Kernel: string(rune(1000))}) != 0 || p.Tasks(Key{Kernel: string(rune(maxKeys + 1009))}) != 1 {
		t.Errorf("%d keys", len(p.series))
	}
}

func TestRate(t *testing.T) {
	var r Rate
	if r.PerSecond() != 0 {
		t.Error("measured without a transfer")
	}
	for range 100 {
		r.Observe(100, 1)
	}
	for range 64 {
		r.Observe(50, 1)
	}
	r.Observe(0, 5)
	r.Observe(5, 0)
	if got := r.PerSecond(); got < 50 || got > 55 {
		t.Errorf("%v", got)
	}
	var l Losses
	if c := l.Chance(); c > 0.011 {
		t.Errorf("a new host: %v", c)
	}
	for i := range 200 {
		l.Observe(i%2 == 0)
	}
	if c := l.Chance(); c < 0.4 || c > 0.6 {
		t.Errorf("every second attempt is lost: %v", c)
	}
}

func BenchmarkObserveAndFit(b *testing.B) {
	var p Predictor
	k := Key{"k", "cpu"}
	rnd := rand.New(rand.NewSource(1))
	for b.Loop() {
		p.Observe(k, uint64(rnd.Intn(1e8)), time.Duration(1+rnd.Intn(1e9)), guess)
		p.Fit(k)
	}
}
