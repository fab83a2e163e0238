package sandbox

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestSpec(t *testing.T) {
	s := &spec{Argv: []string{"python3", "-c", "é\n"}, Env: []string{"A=b=c", "B="}, UID: 7, GID: 8, Groups: []uint32{9}, SetIDs: true, Memory: 1 << 40, File: "/usr/bin/python3", Size: 3}
	body, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeSpec(bytes.NewReader(body))
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range body {
		if _, err := decodeSpec(bytes.NewReader(body[:n])); err == nil {
			t.Fatalf("%d of %d bytes were enough", n, len(body))
		}
	}
	for name, bad := range map[string]*spec{
		"no program":  {},
		"empty":       {Argv: []string{""}},
		"file":        {Argv: []string{"a"}, File: "a"},
		"argument":    {Argv: []string{"a", "b\x00"}},
		"environment": {Argv: []string{"a"}, Env: []string{"x"}},
		"name":        {Argv: []string{"a"}, Env: []string{"=x"}},
		"too long":    {Argv: []string{strings.Repeat("a", maxSpec)}},
	} {
		if _, err := bad.encode(); err == nil {
			t.Errorf("%s was encoded", name)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct{ program, path, want string }{
		{"/bin/x", "PATH=/a", "/bin/x"}, {"./x", "PATH=/a", "./x"}, {"x", "PATH=/a:/b::c:.", "/a/x /b/x"}, {"x", "HOME=/", ""},
	} {
		s := spec{Argv: []string{c.program}, Env: []string{c.path}}
		if got := strings.Join(s.candidates(), " "); got != c.want {
			t.Errorf("%s in %s: %q", c.program, c.path, got)
		}
	}
}

func TestDecodeInfo(t *testing.T) {
	if pid, err := decodeInfo([]byte("{\n    \"child-pid\": 9158,\n    \"net-namespace\": 4026532258\n}\n")); pid != 9158 || err != nil {
		t.Error(pid, err)
	}
	for _, bad := range []string{"", "{", "{}", `{"child-pid": 1}`, `{"child-pid": -9}`, `{"child-pid": "9"}`, `{"child-pid": 99999999999}`} {
		if pid, err := decodeInfo([]byte(bad)); err == nil {
			t.Errorf("%q names %d", bad, pid)
		}
	}
}

func FuzzSpec(f *testing.F) {
	good, _ := (&spec{Argv: []string{"a"}, Env: []string{"PATH=/bin"}}).encode()
	f.Add(good)
	f.Add([]byte("\xff\xff\x3f\x00{"))
	f.Add([]byte("\x04\x00\x00\x00null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSpec(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, c := range s.candidates() {
			if strings.ContainsRune(c, 0) {
				t.Errorf("candidate %q", c)
			}
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if s2, err := decodeSpec(bytes.NewReader(again)); err != nil || !same(s, s2) {
			t.Errorf("%+v became %+v, %v", s, s2, err)
		}
	})
}

func same(a, b *spec) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"child-pid": 12}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if pid, err := decodeInfo(data); err == nil && (pid <= 1 || pid > 1<<22) {
			t.Errorf("process %d", pid)
		}
	})
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		patterns, program string
		want              bool
	}{
		{"", "python3", false},
		{"python3", "python3", true},
		{"python3", "python3.11", false},
		{"python3", "/usr/bin/python3", false},
		{"python*", "python3.11", true},
		{"/usr/bin/*", "/usr/bin/python3", true},
		{"/usr/bin/*", "/usr/bin/x/python3", false},
		{"/usr/*/*", "/usr/bin/../../in/x", false},
		{"/usr/bin/*", "/usr/bin/..", false},
		{"*", "/anything/at/all", true},
		{"a b", "b", true},
		{"[", "[", false},
	} {
		if got := Allowed(strings.Fields(c.patterns), c.program); got != c.want {
			t.Errorf("%q allows %q: %v", c.patterns, c.program, got)
		}
	}
	for p, ok := range map[string]bool{"": false, "[": false, "[a": false, "a*": true} {
		if err := CheckPattern(p); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
}
