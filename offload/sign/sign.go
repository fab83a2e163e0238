package sign

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Bounds of files, in bytes, and of lines that say something.
const (
	MaxFile  = 64 << 10
	maxLines = 256
	maxName  = 128
)

const algorithm = "ed25519"

// Key is one whom a host trusts.
type Key struct {
	Name   string
	public ed25519.PublicKey
}

// Keys are those whom a host trusts.
type Keys []Key

// The reasons why a file is not to be used; Verify wraps them in a sentence.
var (
	ErrUnsigned  = errors.New("it is not signed (quern kernel sign)")
	ErrUntrusted = errors.New("nobody whom this host trusts has signed it")
	ErrWrong     = errors.New("its signature is wrong")
)

// message is what is signed.
func message(file, manifest []byte) []byte {
	f, m := sha256.Sum256(file), sha256.Sum256(manifest)
	return append(append([]byte("quern kernel 1\n"), f[:]...), m[:]...)
}

// NewKey makes a pair: a private key as PEM, and the line of the public one for
// a file of trusted keys.
func NewKey(name string) (private []byte, line string, err error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), fmt.Sprintf("%s %s %s\n", algorithm, encode(public), name), nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("the name of a key is a line of 1 to %d bytes, not %q", maxName, name)
	}
	return nil
}

// ParsePrivate reads a private key.
func ParsePrivate(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("this is no private key: it begins with -----BEGIN PRIVATE KEY-----")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the private key is a %T; one of Ed25519 is needed", key)
	}
	return private, nil
}

// Sign returns the line with which the owner of key vouches for a file and its
// manifest.
func Sign(key ed25519.PrivateKey, file, manifest []byte) string {
	return fmt.Sprintf("%s %s %s\n", algorithm, encode(key.Public().(ed25519.PublicKey)), encode(ed25519.Sign(key, message(file, manifest))))
}

// Add puts line into signatures, in the place of one by the same key. What is
// no signature stays out.
func Add(signatures []byte, line string) []byte {
	mine, _, _ := cutKey(line)
	var out []string
	for text := range strings.Lines(string(signatures)) {
		if key, _, err := cutKey(text); err == nil && !key.Equal(mine) {
			out = append(out, strings.TrimSpace(text)+"\n")
		}
	}
	return []byte(strings.Join(append(out, line), ""))
}

// ReadKeys reads a file of trusted keys, in which nobody but its owner may
// write.
func ReadKeys(name string) (Keys, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("the trusted keys: %w", err)
	}
	if info.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("the trusted keys: others may write to %s (mode %04o): chmod go-w", name, info.Mode().Perm())
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("the trusted keys: %w", err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("the trusted keys: %s: %w", name, err)
	}
	return keys, nil
}

// ParseKeys reads the text of a file of trusted keys.
func ParseKeys(data []byte) (Keys, error) {
	var keys Keys
	err := lines(data, func(text string) error {
		public, name, err := cutKey(text)
		if err != nil {
			return err
		}
		if err := checkName(name); err != nil {
			return err
		}
		keys = append(keys, Key{name, public})
		return nil
	})
	return keys, err
}

// Verify says who of keys has signed a file and its manifest: the first.
func (keys Keys) Verify(file, manifest, signatures []byte) (string, error) {
	if len(signatures) == 0 {
		return "", ErrUnsigned
	}
	text := message(file, manifest)
	known := ""
	signer := ""
	err := lines(signatures, func(line string) error {
		public, rest, err := cutKey(line)
		if err != nil {
			return err
		}
		sig, err := decode(rest, ed25519.SignatureSize)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if !k.public.Equal(public) {
				continue
			}
			known = k.Name
			if signer == "" && ed25519.Verify(k.public, text, sig) {
				signer = k.Name
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrWrong, err)
	case signer != "":
		return signer, nil
	case known != "":
		return "", fmt.Errorf("%w: %s has not signed this file with this kernel.yaml", ErrWrong, known)
	}
	return "", ErrUntrusted
}

// lines calls do for every line that says something.
func lines(data []byte, do func(string) error) error {
	if len(data) > MaxFile {
		return fmt.Errorf("more than %d KiB", MaxFile>>10)
	}
	n, said := 0, 0
	for text := range strings.Lines(string(data)) {
		n++
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		if said++; said > maxLines {
			return fmt.Errorf("line %d: there are more than %d", n, maxLines)
		}
		if err := do(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// cutKey reads "ed25519 PUBLIC-KEY REST".
func cutKey(line string) (ed25519.PublicKey, string, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	key, rest, _ := strings.Cut(rest, " ")
	if kind != algorithm {
		return nil, "", fmt.Errorf("it begins with %q instead of %s", clip(kind), algorithm)
	}
	public, err := decode(key, ed25519.PublicKeySize)
	return public, rest, err
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func decode(s string, size int) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("%q is not base64 of %d bytes", clip(s), size)
	}
	return b, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
