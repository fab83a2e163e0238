package ptx

import (
	"fmt"
	"strconv"
	"strings"
)

// Entry is a kernel of a file.
type Entry struct {
	Name   string
	Params []Param
	Body   string // between its braces, without comments
}

// Param is one argument of a kernel.
type Param struct {
	Name string
	Type string // ".u64"
	Size int    // bytes
}

// File is what is in a file of PTX.
type File struct {
	Entries []Entry
	Rest    string // what is outside of the kernels, without comments
}

// Limits of what is taken for a file.
const (
	maxEntries = 1024
	maxParams  = 256
)

// Entry returns the kernel of that name, or nil.
func (f *File) Entry(name string) *Entry {
	for i := range f.Entries {
		if f.Entries[i].Name == name {
			return &f.Entries[i]
		}
	}
	return nil
}

// Parse finds the kernels of a file. What is not a kernel is not looked at.
func Parse(source []byte) (*File, error) {
	text, err := uncomment(string(source))
	if err != nil {
		return nil, err
	}
	f := new(File)
	for {
		before, after, found := cutWord(text, ".entry")
		f.Rest += strings.TrimSuffix(strings.TrimRight(before, " \t\n"), ".visible")
		if !found {
			break
		}
		e, rest, err := entry(after)
		if err != nil {
			return nil, err
		}
		if f.Entry(e.Name) != nil {
			return nil, fmt.Errorf("PTX: two kernels are called %s", e.Name)
		}
		if f.Entries = append(f.Entries, e); len(f.Entries) > maxEntries {
			return nil, fmt.Errorf("PTX: more than %d kernels", maxEntries)
		}
		text = rest
	}
	if !strings.Contains(f.Rest, ".version") || !strings.Contains(f.Rest, ".target") {
		return nil, fmt.Errorf("this is not PTX: it has no .version and .target")
	}
	return f, nil
}

// cutWord is strings.Cut at a word.
func cutWord(s, word string) (before, after string, found bool) {
	for from := 0; ; {
		i := strings.Index(s[from:], word)
		if i < 0 {
			return s, "", false
		}
		i += from
		end := i + len(word)
		if (i == 0 || !isName(s[i-1])) && (end == len(s) || !isName(s[end])) {
			return s[:i], s[end:], true
		}
		from = end
	}
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c == '%' || c == '.'
}

// uncomment puts a space in the place of each comment. Strings have none.
func uncomment(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		i := strings.IndexAny(s, "\"/")
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case s[0] == '"':
			end := strings.IndexAny(s[1:], "\"\n")
			if end < 0 || s[1+end] == '\n' {
				return "", fmt.Errorf("PTX: a string does not end")
			}
			b.WriteString(s[:end+2])
			s = s[end+2:]
		case strings.HasPrefix(s, "//"):
			_, rest, found := strings.Cut(s, "\n")
			if s = rest; found {
				b.WriteByte('\n')
			}
		case strings.HasPrefix(s, "/*"):
			_, rest, found := strings.Cut(s[2:], "*/")
			if !found {
				return "", fmt.Errorf("PTX: a comment does not end")
			}
			b.WriteByte(' ')
			s = rest
		default:
			b.WriteByte('/')
			s = s[1:]
		}
	}
	b.WriteString(s)
	return b.String(), nil
}

// entry reads a kernel from after the word .entry on.
func entry(s string) (e Entry, rest string, err error) {
	s = strings.TrimLeft(s, " \t\n\r")
	n := 0
	for n < len(s) && isName(s[n]) {
		n++
	}
	if e.Name, s = s[:n], strings.TrimLeft(s[n:], " \t\n\r"); n == 0 {
		return e, "", fmt.Errorf("PTX: a kernel has no name")
	}
	if strings.HasPrefix(s, "(") {
		list, after, found := strings.Cut(s[1:], ")")
		if !found {
			return e, "", fmt.Errorf("PTX: the arguments of kernel %s do not end", e.Name)
		}
		if e.Params, err = params(list); err != nil {
			return e, "", fmt.Errorf("PTX: kernel %s: %w", e.Name, err)
		}
		s = after
	}
	head, body, found := strings.Cut(s, "{")
	if !found || strings.Contains(head, ";") {
		return e, "", fmt.Errorf("PTX: kernel %s has no body", e.Name)
	}
	depth := 1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			e.Body = body[:i]
			return e, body[i+1:], nil
		}
	}
	return e, "", fmt.Errorf("PTX: the body of kernel %s does not end", e.Name)
}

// params reads what is between the parentheses: .param .align 8 .b8 NAME[16],
// .param .u64 .ptr .global .align 4 NAME.
func params(list string) (out []Param, err error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		words := strings.Fields(text)
		if len(words) < 3 || words[0] != ".param" {
			return nil, fmt.Errorf("%q is no argument", strings.TrimSpace(text))
		}
		p := Param{Name: words[len(words)-1]}
		for _, w := range words[1 : len(words)-1] {
			if size := TypeSize(w); size > 0 && p.Type == "" {
				p.Type, p.Size = w, size
			}
		}
		if name, count, isArray := strings.Cut(p.Name, "["); isArray {
			n, err := strconv.Atoi(strings.TrimSuffix(count, "]"))
			if err != nil || n < 1 || n > 4096 {
				return nil, fmt.Errorf("argument %s has a size of %q", name, count)
			}
			p.Name, p.Size = name, n*p.Size
		}
		if p.Type == "" {
			return nil, fmt.Errorf("argument %s has no type", p.Name)
		}
		if out = append(out, p); len(out) > maxParams {
			return nil, fmt.Errorf("more than %d arguments", maxParams)
		}
	}
	return out, nil
}

// TypeSize is the bytes of a value of a fundamental type such as ".u32"; 0: it
// is none, or a predicate.
func TypeSize(typ string) int {
	switch typ {
	case ".b8", ".u8", ".s8":
		return 1
	case ".b16", ".u16", ".s16", ".f16":
		return 2
	case ".b32", ".u32", ".s32", ".f32":
		return 4
	case ".b64", ".u64", ".s64", ".f64":
		return 8
	}
	return 0
}
