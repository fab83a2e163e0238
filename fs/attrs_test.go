package fs

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

func TestPlanLocal(t *testing.T) {
	file := attrs{ino: 7, mode: typeReg | 0o6755, uid: 10, gid: 20, size: 5}
	owner, group, other, root := &wire.Cred{Uid: 10, Gid: 99}, &wire.Cred{Uid: 10, Gid: 20}, &wire.Cred{Uid: 11, Gid: 20}, &wire.Cred{}
	const now = 1000
	for _, c := range []struct {
		name string
		a    attrs
		cred *wire.Cred
		q    *wire.SetAttr
		want *wire.SetAttr // nil: meta's to judge
	}{
		{"chmod by the owner", file, owner, &wire.SetAttr{Mask: wire.SetMode, Mode: 0o600},
			&wire.SetAttr{Ino: 7, Mask: wire.SetMode | wire.SetCtime, Mode: 0o600, CtimeNs: now}},
		{"chmod by another", file, other, &wire.SetAttr{Mask: wire.SetMode, Mode: 0o600}, nil},
		{"setgid by a member", file, group, &wire.SetAttr{Mask: wire.SetMode, Mode: 0o2711},
			&wire.SetAttr{Ino: 7, Mask: wire.SetMode | wire.SetCtime, Mode: 0o2711, CtimeNs: now}},
		{"setgid, membership unknown", file, owner, &wire.SetAttr{Mask: wire.SetMode, Mode: 0o2711}, nil},
		{"chown by root clears suid and sgid", file, root, &wire.SetAttr{Mask: wire.SetUID | wire.SetGID, Uid: 1, Gid: 2},
			&wire.SetAttr{Ino: 7, Mask: wire.SetUID | wire.SetGID | wire.SetMode | wire.SetCtime, Uid: 1, Gid: 2, Mode: 0o755, CtimeNs: now}},
		{"chown by the owner", file, owner, &wire.SetAttr{Mask: wire.SetGID, Gid: 20}, nil},
		{"utimes", file, owner, &wire.SetAttr{Mask: wire.SetAtime | wire.SetMtime, AtimeNs: -5, MtimeNs: 6},
			&wire.SetAttr{Ino: 7, Mask: wire.SetAtime | wire.SetMtime | wire.SetCtime, AtimeNs: -5, MtimeNs: 6, CtimeNs: now}},
		{"touch", file, root, &wire.SetAttr{Mask: wire.AtimeNow | wire.MtimeNow},
			&wire.SetAttr{Ino: 7, Mask: wire.SetAtime | wire.SetMtime | wire.SetCtime, AtimeNs: now, MtimeNs: now, CtimeNs: now}},
		{"touch by one who may only write", file, other, &wire.SetAttr{Mask: wire.MtimeNow}, nil},
		{"truncate", file, root, &wire.SetAttr{Mask: wire.SetSize}, nil},
		{"a directory", attrs{mode: typeDir | 0o755}, root, &wire.SetAttr{Mask: wire.SetMode, Mode: 0o700}, nil},
		{"nothing", file, root, &wire.SetAttr{}, nil},
	} {
		got := planLocal(c.a, c.cred, c.q, now)
		if (got == nil) != (c.want == nil) || got != nil && !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDeferred(t *testing.T) {
	base := &wire.Attr{Ino: 3, Mode: typeReg | 0o644, Uid: 1, Gid: 1, AtimeNs: 10, MtimeNs: 10, CtimeNs: 10}
	var d deferred
	d.set(&wire.SetAttr{Mask: wire.SetMode | wire.SetMtime | wire.SetCtime, Mode: 0o600, MtimeNs: 20, CtimeNs: 20})
	got := d.over(attrsOf(base))
	if got.mode != typeReg|0o600 || got.mtimeNs != 20 || got.ctimeNs != 20 || got.atimeNs != 10 || got.uid != 1 {
		t.Fatalf("%+v", got)
	}
	// A commit has the mode and the first mtime; meanwhile mtime has moved on.
	d.set(&wire.SetAttr{Mask: wire.SetMtime | wire.SetCtime, MtimeNs: 30, CtimeNs: 30})
	committed := &wire.Attr{Ino: 3, Mode: typeReg | 0o600, Uid: 1, Gid: 1, AtimeNs: 10, MtimeNs: 20, CtimeNs: 20}
	d.settle(committed)
	if d.mask != wire.SetMtime|wire.SetCtime {
		t.Fatalf("mask %b", d.mask)
	}
	if got := d.over(attrsOf(committed)); got.mtimeNs != 30 || got.ctimeNs != 30 {
		t.Fatalf("%+v", got)
	}
	committed.MtimeNs, committed.CtimeNs = 30, 31
	d.settle(committed)
	if d.mask != 0 {
		t.Fatalf("mask %b", d.mask)
	}
	if got := d.over(attrsOf(committed)); got.ctimeNs != 31 {
		t.Fatalf("meta's later change time counts: %+v", got)
	}
}

func TestDeferredUnder(t *testing.T) {
	var carried, d deferred
	carried.set(&wire.SetAttr{Mask: wire.SetMode | wire.SetMtime | wire.SetUID, Mode: 0o700, MtimeNs: 1, Uid: 5})
	d.set(&wire.SetAttr{Mask: wire.SetMtime | wire.SetCtime, MtimeNs: 2, CtimeNs: 2})
	d.under(carried)
	want := deferred{mask: wire.SetMode | wire.SetMtime | wire.SetUID | wire.SetCtime, mode: 0o700, uid: 5, mtime: 2, ctime: 2}
	if d != want {
		t.Errorf("%+v, want %+v", d, want)
	}
}

func TestKillSuid(t *testing.T) {
	for _, c := range []struct {
		mode   uint32
		member bool
		want   uint32
	}{
		{typeReg | 0o6755, true, typeReg | 0o755}, {typeReg | 0o6745, true, typeReg | 0o2745}, {typeReg | 0o6745, false, typeReg | 0o745},
		{typeDir | 0o2755, false, typeDir | 0o2755}, {typeReg | 0o644, false, typeReg | 0o644},
	} {
		if got := killSuid(c.mode, c.member); got != c.want {
			t.Errorf("%o: %o, want %o", c.mode, got, c.want)
		}
	}
}

func TestSplitTime(t *testing.T) {
	for _, ns := range []int64{0, 1, -1, 1e9, -1e9, 1_999_999_999, -1_000_000_001} {
		sec, nsec := split(ns)
		if nsec >= 1e9 || join(sec, nsec) != ns {
			t.Errorf("%d: %d, %d", ns, int64(sec), nsec)
		}
	}
}

func TestParseGroups(t *testing.T) {
	for _, c := range []struct {
		text string
		want []uint32
	}{
		{"Name:\tx\nUid:\t1\t1\t1\t1\nGroups:\t4 20 4294967294 \nNStgid:\t1\n", []uint32{4, 20, 4294967294}},
		{"Name:\tGroups: 7\nGroups:\t\nX:", nil}, {"", nil},
	} {
		got := parseGroups(c.text)
		if len(got) != len(c.want) {
			t.Errorf("%q: %v", c.text, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%q: %v", c.text, got)
			}
		}
	}
}
