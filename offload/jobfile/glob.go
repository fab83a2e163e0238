package jobfile

import (
	"errors"
	"path"
	"strings"

	"quernfs/internal/rawtext"
)

// Wild says whether pattern has wildcards.
func Wild(pattern string) bool { return strings.ContainsAny(pattern, `*?[\`) }

// Base is the longest leading path of pattern without a wildcard: where a
// walk begins.
func Base(pattern string) string {
	parts := strings.Split(pattern, "/")
	for i, p := range parts {
		if Wild(p) {
			if b := strings.Join(parts[:i], "/"); b != "" {
				return b
			}
			return "/"
		}
	}
	return pattern
}

// CheckPattern says what is wrong with a pattern.
func CheckPattern(pattern string) error {
	stars := 0
	for _, c := range strings.Split(pattern, "/") {
		if c == "**" {
			if stars++; stars > 4 {
				return errors.New("more than four ** in one pattern")
			}
			continue
		}
		if strings.Contains(c, "**") {
			return errors.New("** must stand alone between two slashes")
		}
		if _, err := path.Match(rawtext.Hide(c), ""); err != nil {
			return errors.New("a [ without its ]")
		}
	}
	return nil
}

// Match says whether the whole path (absolute, clean) fits the pattern. **
// stands for any number of directories, none too; the others are those of
// path.Match within one component. As in a shell, a wildcard does not match a
// leading dot.
func Match(pattern, name string) bool {
	full, _ := match(strings.Split(pattern, "/"), strings.Split(name, "/"))
	return full
}

// MayHold says whether something below the directory dir could fit the
// pattern, so that a walk need not enter the others.
func MayHold(pattern, dir string) bool {
	if dir == "/" {
		return true
	}
	_, prefix := match(strings.Split(pattern, "/"), strings.Split(dir, "/"))
	return prefix
}

// match reports whether pat fits name as a whole, and whether it fits name
// followed by at least one more component.
func match(pat, name []string) (full, prefix bool) {
	if len(name) == 0 {
		for _, p := range pat {
			if p != "**" {
				return false, true
			}
		}
		return true, len(pat) > 0
	}
	if len(pat) == 0 {
		return false, false
	}
	if pat[0] == "**" {
		full, prefix = match(pat[1:], name)
		if !strings.HasPrefix(name[0], ".") {
			f, p := match(pat, name[1:])
			full, prefix = full || f, prefix || p
		}
		return full, prefix
	}
	if !component(pat[0], name[0]) {
		return false, false
	}
	return match(pat[1:], name[1:])
}

func component(pat, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pat, ".") {
		return false
	}
	// A byte that is not part of UTF-8 is a character of its own.
	ok, err := path.Match(rawtext.Hide(pat), rawtext.Hide(name))
	return err == nil && ok
}
