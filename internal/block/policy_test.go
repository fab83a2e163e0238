package block

import (
	"errors"
	"testing"

	"quernfs/internal/wire"
)

func TestParsePolicy(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Policy
		out  string // String(), "" if the same as in
	}{
		{"4+2", Policy{4, 2, 4 << 20, 2048}, ""},
		{" 4+2\n", Policy{4, 2, 4 << 20, 2048}, "4+2"},
		{"1+0", Policy{1, 0, 4 << 20, 2048}, ""},
		{"1+2", Policy{1, 2, 4 << 20, 2048}, ""},
		{"32+8", Policy{32, 8, 4 << 20, 2048}, ""},
		{"4+2,block=1m", Policy{4, 2, 1 << 20, 2048}, "4+2,block=1048576"},
		{"4+2,block=4m,inline=2k", Policy{4, 2, 4 << 20, 2048}, "4+2"},
		{"4+2,block=65536,inline=0", Policy{4, 2, 65536, NeverInline}, ""},
		{"8+3,inline=100", Policy{8, 3, 4 << 20, 100}, ""},
	} {
		got, err := ParsePolicy(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParsePolicy(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			continue
		}
		want := c.out
		if want == "" {
			want = c.in
		}
		if got.String() != want {
			t.Errorf("ParsePolicy(%q).String() = %q, want %q", c.in, got.String(), want)
		}
		if back := FromWire(got.ToWire()); back != got {
			t.Errorf("%q over the wire becomes %+v", c.in, back)
		}
	}
	for _, in := range []string{
		"", "4", "4+", "+2", "4+2+1", "0+2", "33+2", "4+9", "-4+2", "4+-2", "4 + 2", "4+2,", "4+2,block",
		"4+2,block=0", "4+2,block=8m", "4+2,block=1", "4+2,inline=1m", "4+2,what=1", "99999999999999999999+1", "4+2,block=99999999999m",
	} {
		if p, err := ParsePolicy(in); !errors.Is(err, wire.Invalid) {
			t.Errorf("ParsePolicy(%q) = %+v, %v; want Invalid", in, p, err)
		}
	}
}

func TestZeroPolicy(t *testing.T) {
	if err := FromWire(nil).Validate(); !errors.Is(err, wire.Invalid) {
		t.Errorf("the zero policy is %v", err)
	}
	p := Policy{K: 4, M: 2}
	if r := FromWire(p.ToWire()); r != p.Resolved() || r.BlockSize != 4<<20 || r.InlineMax != 2048 {
		t.Errorf("defaults: %+v", r)
	}
	for _, c := range []struct{ k, m, enough int }{{4, 2, 5}, {4, 1, 5}, {4, 0, 4}, {1, 0, 1}, {1, 2, 2}, {8, 3, 9}} {
		if n := (Policy{K: c.k, M: c.m}).Enough(); n != c.enough {
			t.Errorf("%d+%d: enough is %d, want %d", c.k, c.m, n, c.enough)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{"4+2", "1+0", "32+8,block=1m,inline=0", "4+2,block=", "9+,=", "0+0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePolicy(s)
		if err != nil {
			if !errors.Is(err, wire.Invalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("%q was accepted as %+v: %v", s, p, err)
		}
		back, err := ParsePolicy(p.String())
		if err != nil || back != p {
			t.Fatalf("%q → %q → %+v, %v", s, p.String(), back, err)
		}
	})
}
