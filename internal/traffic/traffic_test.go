package traffic

import (
	"context"
	"maps"
	"testing"
	"time"
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
	for server, n := range map[uint32]int{1: 1 << 20, 2: 1 << 16, 3: 100} {
		m.Transfer(server, n, time.Second)
		m.Transfer(server, n, 2*time.Second)
		m.Transfer(server, n, 0)
	}
	if want := map[uint32]Link{1: {2 << 20, 3 * time.Second}, 2: {1 << 17, 3 * time.Second}}; !maps.Equal(m.Links(), want) {
		t.Errorf("links %v, want %v", m.Links(), want)
	}
	for server := range uint32(1000) {
		m.Transfer(server, 1<<20, time.Second)
	}
	if n := len(m.Links()); n != maxLinks {
		t.Errorf("%d links are kept", n)
	}
	none := Of(Carry(context.Background(), context.Background()))
	none.Add(1, true)
	none.Transfer(1, 1<<20, time.Second)
	if none.Links() != nil || none.Local()+none.Remote() != 0 {
		t.Error("nobody's bytes are counted")
	}
}
