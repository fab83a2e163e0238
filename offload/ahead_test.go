package offload

import (
	"testing"
	"time"
)

func TestAhead(t *testing.T) {
	var p pace
	if n := p.ahead(2); n != 0 {
		t.Errorf("%d before anything is known", n)
	}
	p.note(time.Second)
	if n := p.ahead(2); n != 0 {
		t.Errorf("%d of tasks of a second", n)
	}
	for range 200 {
		p.note(10 * time.Millisecond)
	}
	if n := p.ahead(2); n < 25 || n > 30 {
		t.Errorf("%d of tasks of 10 ms", n)
	}
	for range 200 {
		p.note(time.Microsecond)
	}
	if n := p.ahead(2); n != 2*aheadMost {
		t.Errorf("%d of tasks of a microsecond", n)
	}
	for range 200 {
		p.note(time.Minute)
	}
	if n := p.ahead(2); n != 0 {
		t.Errorf("%d of tasks of a minute", n)
	}
}
