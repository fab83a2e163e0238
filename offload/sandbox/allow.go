package sandbox

import (
	"fmt"
	"path"
	"strings"
)

// CheckPattern says what is wrong with an entry of an allow-list.
func CheckPattern(pattern string) error {
	if pattern == "" {
		return fmt.Errorf("an empty name allows nothing")
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%q: a [ without its ]", pattern)
	}
	return nil
}

// Allowed says whether an allow-list lets a program be run. A pattern without a
// slash is for programs named without one, which are looked for in the
// system's directories; one with a slash is for a path. * ? and [a-z] match
// within one name; the pattern * alone allows everything.
func Allowed(patterns []string, program string) bool {
	for _, p := range patterns {
		if p == "*" {
			return true
		}
		if strings.Contains(p, "/") != strings.Contains(program, "/") {
			continue
		}
		// /usr/bin/../../in/x is not below /usr/bin.
		if strings.Contains(program, "/") && (path.Clean(program) != program || program[0] != '/') {
			continue
		}
		if ok, err := path.Match(p, program); ok && err == nil {
			return true
		}
	}
	return false
}
