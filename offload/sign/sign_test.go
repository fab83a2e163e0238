package sign

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pair makes a key, and the line that makes it trusted.
func pair(t *testing.T, name string) (sign func(file, manifest string) string, line string) {
	t.Helper()
	private, line, err := NewKey(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivate(private)
	if err != nil {
		t.Fatal(err)
	}
	return func(file, manifest string) string { return Sign(key, []byte(file), []byte(manifest)) }, line
}

func TestVerify(t *testing.T) {
	ann, annLine := pair(t, "ann, root of a")
	bob, bobLine := pair(t, "bob")
	eve, _ := pair(t, "eve")
	keys, err := ParseKeys([]byte("# whom we trust\n\n" + annLine + "  " + bobLine))
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	const file, manifest = "a bitstream", "version: 1\n"
	good := ann(file, manifest)
	forged := strings.Fields(good)
	forged[1] = strings.Fields(bobLine)[1]
	for name, c := range map[string]struct {
		keys Keys
		file string
		sig  string
		who  string
		err  error
	}{
		"signed":            {keys, file, good, "ann, root of a", nil},
		"by the second":     {keys, file, bob(file, manifest), "bob", nil},
		"by both":           {keys, file, "# two\n" + bob(file, manifest) + good, "bob", nil},
		"and by a stranger": {keys, file, eve(file, manifest) + good, "ann, root of a", nil},
		"once wrongly":      {keys, file, ann("old", manifest) + good, "ann, root of a", nil},
		"unsigned":          {keys, file, "", "", ErrUnsigned},
		"only remarks":      {keys, file, "# nothing\n", "", ErrUntrusted},
		"by a stranger":     {keys, file, eve(file, manifest), "", ErrUntrusted},
		"nobody is trusted": {nil, file, good, "", ErrUntrusted},
		"another file":      {keys, file + "!", good, "", ErrWrong},
		"another manifest":  {keys, file, ann(file, manifest+"#"), "", ErrWrong},
		"swapped":           {keys, file, ann(manifest, file), "", ErrWrong},
		"by another's key":  {keys, file, strings.Join(forged, " "), "", ErrWrong},
		"cut":               {keys, file, good[:len(good)-3], "", ErrWrong},
		"no text":           {keys, file, "\x00\x01", "", ErrWrong},
		"another kind":      {keys, file, strings.Replace(good, "ed25519", "rsa", 1), "", ErrWrong},
		"more than a file":  {keys, file, strings.Repeat("#\n", MaxFile), "", ErrWrong},
		"too many":          {keys, file, strings.Repeat(good, maxLines+1), "", ErrWrong},
	} {
		who, err := c.keys.Verify([]byte(c.file), []byte(manifest), []byte(c.sig))
		if who != c.who || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", name, who, err, c.who, c.err)
		}
	}
}

func TestAdd(t *testing.T) {
	ann, annLine := pair(t, "ann")
	bob, bobLine := pair(t, "bob")
	keys, err := ParseKeys([]byte(annLine + bobLine))
	if err != nil {
		t.Fatal(err)
	}
	sig := Add(nil, ann("old", ""))
	sig = Add(sig, bob("new", ""))
	sig = Add(append([]byte("torn"), sig[:20]...), bob("new", ""))
	sig = Add(Add(sig, ann("old", "")), ann("new", ""))
	if n := bytes.Count(sig, []byte("\n")); n != 2 {
		t.Errorf("%d lines: %s", n, sig)
	}
	for _, k := range keys {
		if who, err := (Keys{k}).Verify([]byte("new"), nil, sig); err != nil || who != k.Name {
			t.Errorf("%s: %q, %v", k.Name, who, err)
		}
	}
}

func TestBadKeys(t *testing.T) {
	_, line := pair(t, "ann")
	fields := strings.Fields(line)
	for name, text := range map[string]string{
		"no name":   fields[0] + " " + fields[1],
		"no key":    "ed25519",
		"kind":      "ssh-" + line,
		"short":     "ed25519 AAAA ann",
		"no base64": "ed25519 *** ann",
		"control":   strings.TrimSpace(line) + "\x07",
		"second":    line + "nonsense\n",
	} {
		if keys, err := ParseKeys([]byte(text)); err == nil {
			t.Errorf("%s: %v is taken", name, keys)
		} else if !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := NewKey("two\nlines"); err == nil {
		t.Error("a name of two lines is taken")
	}
	for _, text := range []string{"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := ParsePrivate([]byte(text)); err == nil {
			t.Errorf("%q is a private key", text)
		}
	}
}

// TestReadKeys: whom a host trusts is what its owner has written.
func TestReadKeys(t *testing.T) {
	_, line := pair(t, "ann")
	name := filepath.Join(t.TempDir(), "keys")
	if _, err := ReadKeys(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(name); err != nil || len(keys) != 1 || keys[0].Name != "ann" {
		t.Errorf("%v, %v", keys, err)
	}
	for _, mode := range []os.FileMode{0o666, 0o664} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeys(name); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// FuzzSignature: no text makes a signature of one that is none, and none makes
// the reader fall.
func FuzzSignature(f *testing.F) {
	private, line, err := NewKey("ann")
	if err != nil {
		f.Fatal(err)
	}
	key, err := ParsePrivate(private)
	if err != nil {
		f.Fatal(err)
	}
	keys, err := ParseKeys([]byte(line))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(Sign(key, []byte("another file"), nil)), []byte(line))
	f.Add([]byte("ed25519 "), []byte("#\n"))
	f.Fuzz(func(t *testing.T, sig, text []byte) {
		if who, err := keys.Verify([]byte("file"), nil, sig); err == nil || who != "" {
			t.Errorf("%q is taken for a signature by %s", sig, who)
		}
		if more, err := ParseKeys(text); err == nil {
			for _, k := range more {
				if checkName(k.Name) != nil || len(k.public) != 32 {
					t.Errorf("%q makes the key %+v", text, k)
				}
			}
		}
		Add(sig, line)
	})
}
