package rawtext

import (
	"strings"
	"unicode/utf8"
)

// The byte b that is not part of UTF-8 is hidden as the character base+b, of the
// private range of plane 16.
const (
	base  = 0x10F700
	first = base + 0x80
	last  = base + 0xff
)

// Hide makes valid UTF-8 of s.
func Hide(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError && (r < first || r > last) || n > 1 && r == utf8.RuneError {
			b.WriteString(s[i : i+n])
		} else {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteRune(base + rune(c))
			}
		}
		i += n
	}
	return b.String()
}

// plain: Hide changes nothing.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	// All characters of the range begin with this byte.
	if strings.IndexByte(s, 0xf4) < 0 {
		return true
	}
	return strings.IndexFunc(s, hidden) < 0
}

func hidden(r rune) bool { return first <= r && r <= last }

// Show gives back what Hide was given.
func Show(s string) string {
	if strings.IndexByte(s, 0xf4) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if hidden(r) {
			b.WriteByte(byte(r - base))
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
