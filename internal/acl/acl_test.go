package acl

import (
	"bytes"
	"slices"
	"testing"
)

const regular = 0o100000

func parse(t testing.TB, text string) List {
	t.Helper()
	a, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDecode(t *testing.T) {
	for text, ok := range map[string]bool{
		"u:rwx,g:rx,o:r":                     true,
		"u:rwx,g:rx,m:r,o:r":                 true,
		"u:rwx,U1:r,U2:w,g:rx,G1:r,m:r,o:r":  true,
		"u:rwx,U1:r,g:rx,o:r":                false, // needs a mask
		"g:rx,u:rwx,o:r":                     false,
		"u:rwx,g:rx":                         false,
		"u:rwx,o:r":                          false,
		"u:rwx,u:rwx,g:rx,o:r":               false,
		"u:rwx,g:rx,g:rx,o:r":                false,
		"u:rwx,g:rx,m:r,m:r,o:r":             false,
		"u:rwx,g:rx,o:r,o:r":                 false,
		"u:rwx,g:rx,U1:r,m:r,o:r":            false,
		"u:rwx,U4294967295:r,g:rx,m:r,o:r":   false,
		"u:rwx,g:rx,G4294967295:rx,m:rx,o:r": false,
	} {
		a := parse(t, text)
		got, err := Decode(a.Encode())
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if ok && !bytes.Equal(got.Encode(), a.Encode()) {
			t.Errorf("%s came back as %s", text, got)
		}
	}
	for _, b := range []string{"", "\x02\x00\x00", "\x03\x00\x00\x00", "\x02\x00\x00\x00x"} {
		if _, err := Decode([]byte(b)); err == nil {
			t.Errorf("%q was accepted", b)
		}
	}
	if a, err := Decode([]byte("\x02\x00\x00\x00")); a != nil || err != nil {
		t.Errorf("an empty ACL: %v %v", a, err)
	}
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		acl   string
		perm  uint32
		whole bool
		chmod uint32
		after string
	}{
		{"u:rwx,g:rx,o:r", 0o754, true, 0o640, "u:rw-,g:r--,o:---"},
		{"u:rw,U1:rwx,g:rx,m:rw,o:-", 0o660, false, 0o751, "u:rwx,U1:rwx,g:r-x,m:r-x,o:--x"},
		{"u:rw,g:rx,m:w,o:-", 0o620, false, 0o600, "u:rw-,g:r-x,m:---,o:---"},
	} {
		a := parse(t, test.acl)
		if perm, whole := a.Mode(); perm != test.perm || whole != test.whole {
			t.Errorf("%s: %o %v", test.acl, perm, whole)
		}
		if after := a.Chmod(test.chmod).String(); after != test.after {
			t.Errorf("%s after chmod %o: %s", test.acl, test.chmod, after)
		}
	}
	for _, test := range []struct {
		def    string
		mode   uint32
		want   uint32
		access string
	}{
		{"u:rwx,g:rx,o:r", 0o666, 0o644, ""},
		{"u:r,g:rwx,o:rwx", 0o777, 0o477, ""},
		{"u:rwx,U1:rwx,g:rwx,m:rx,o:-", 0o666, 0o640, "u:rw-,U1:rwx,g:rwx,m:r--,o:---"},
		{"u:rwx,g:rwx,m:rwx,o:rwx", 0o640, 0o640, "u:rw-,g:rwx,m:r--,o:---"},
	} {
		mode, access := parse(t, test.def).Create(regular | test.mode)
		if mode != regular|test.want || access.String() != test.access {
			t.Errorf("%s with %o: %o %s", test.def, test.mode, mode, access)
		}
	}
}

func TestPermits(t *testing.T) {
	groups := func(ids ...uint32) func(uint32) bool {
		return func(gid uint32) bool { return slices.Contains(ids, gid) }
	}
	const owning = 5
	for _, c := range []struct {
		acl    string
		uid    uint32
		groups []uint32
		want   uint16
		ok     bool
	}{
		{"u:rwx,U7:rw,g:-,m:r,o:rwx", 7, nil, Read, true},
		{"u:rwx,U7:rw,g:-,m:r,o:rwx", 7, nil, Write, false}, // the mask
		{"u:rwx,U7:-,g:rwx,m:rwx,o:rwx", 7, []uint32{owning}, Read, false},
		{"u:rwx,g:r,o:rwx", 8, []uint32{owning}, Read, true},
		{"u:rwx,g:r,o:rwx", 8, []uint32{owning}, Write, false}, // others' rights are not a member's
		{"u:rwx,g:-,G6:r,m:r,o:-", 8, []uint32{owning, 6}, Read, true},
		{"u:rwx,g:r,G6:w,m:rw,o:-", 8, []uint32{owning, 6}, Read | Write, false}, // no entry has both
		{"u:rwx,g:-,o:r", 8, []uint32{9}, Read, true},
	} {
		if ok := parse(t, c.acl).Permits(c.uid, owning, groups(c.groups...), c.want); ok != c.ok {
			t.Errorf("%s, user %d in %v, %o: %v", c.acl, c.uid, c.groups, c.want, ok)
		}
	}
}

func TestParse(t *testing.T) {
	const text = "u:rwx,U1000:r-x,g:r--,G5:rw-,m:rwx,o:---"
	if got := parse(t, text).String(); got != text {
		t.Errorf("%s came back as %s", text, got)
	}
	for _, wrong := range []string{"", "u", "u:rwz", "x:r", "U:r", "u1:r", "G99999999999:r", ":r", "u:r,"} {
		if a, err := Parse(wrong); err == nil {
			t.Errorf("%q is %v", wrong, a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(parse(f, "u:rwx,U1:r,g:rx,G1:r,m:r,o:r").Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err != nil || a == nil {
			return
		}
		again, err := Decode(a.Encode())
		if err != nil || len(again) != len(a) {
			t.Fatal(a, again, err)
		}
		if text, err := Parse(a.String()); err != nil || text.String() != a.String() {
			t.Errorf("%s: %v", a, err)
		}
		a.Create(0o666)
		a.Chmod(0o640)
		a.Permits(5, 6, func(uint32) bool { return true }, 7)
	})
}
