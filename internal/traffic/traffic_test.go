package traffic

import (
	"context"
	"testing"
)

func TestMeter(t *testing.T) {
	var m Meter
	ctx, cancel := context.WithCancel(With(context.Background(), &m))
	Of(ctx).Add(3, false)
	later := Carry(context.Background(), ctx)
	cancel()
	Of(later).Add(5, true)
	if later.Err() != nil || m.Local() != 3 || m.Remote() != 5 {
		t.Errorf("%v: local %d, remote %d", later.Err(), m.Local(), m.Remote())
	}
	none := Of(Carry(context.Background(), context.Background()))
	none.Add(1, true)
	if none.Local()+none.Remote() != 0 {
		t.Error("nobody's bytes are counted")
	}
}
