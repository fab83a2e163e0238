package linear

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// partition names the part of the history that an operation belongs to.
func (o Op) partition() string {
	switch o.Kind {
	case Write, Read, Size, Truncate:
		return fmt.Sprintf("contents of %d", o.Ino)
	case Lock, Unlock:
		return fmt.Sprintf("lock on %d", o.Ino)
	}
	return "names of " + o.Group
}

func modelOf(k Kind) porcupine.Model {
	switch k {
	case Write, Read, Size, Truncate:
		return contents
	case Lock, Unlock:
		return locks
	}
	return names
}

// namespace is the state of a group of directories. It is a text, so that states
// compare and hash as values: sorted lines of "dir/name=file". A file is the
// inode number, or "?N" for one whose creation was not answered: N is the call's
// place among such, and the first who sees it gives it its number.
//
// Steps decode and encode it; groups are small.
type namespace map[string]string

func (n namespace) encode() string {
	keys := slices.Sorted(maps.Keys(n))
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(n[k])
		b.WriteByte('\n')
	}
	return b.String()
}

func decode(s string) namespace {
	n := namespace{}
	for line := range strings.Lines(s) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		n[k] = v
	}
	return n
}

// sees says whether the file at key may be the one with this number, and if
// its number was not known makes it so.
func (n namespace) sees(key string, ino uint64) bool {
	f, want := n[key], fmt.Sprint(ino)
	if f == want {
		return true
	}
	if !strings.HasPrefix(f, "?") {
		return false
	}
	for _, other := range n {
		if other == want {
			return false // two files, one number
		}
	}
	for k, other := range n {
		if other == f {
			n[k] = want
		}
	}
	return true
}

const (
	exists  = "EEXIST"
	missing = "ENOENT"
)

var names = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		op, res := input.(Op), output.(Result)
		n := decode(state.(string))
		err := n.apply(op, res)
		if res.Unknown {
			return true, n.encode()
		}
		if err != res.Err {
			return false, state
		}
		if err != "" {
			return true, state
		}
		switch op.Kind {
		case Lookup:
			if !n.sees(op.Dir+"/"+op.Name, res.Ino) {
				return false, state
			}
		case List:
			seen := 0
			for k := range n {
				dir, name, _ := strings.Cut(k, "/")
				if dir != op.Dir {
					continue
				}
				ino, listed := res.Names[name]
				if !listed || !n.sees(k, ino) {
					return false, state
				}
				seen++
			}
			if seen != len(res.Names) {
				return false, state
			}
		}
		return true, n.encode()
	},
}

// apply carries an operation out and returns the errno's name. Where the
// outcome is unknown an error leaves everything as it was, too.
func (n namespace) apply(op Op, res Result) string {
	key, key2 := op.Dir+"/"+op.Name, op.Dir2+"/"+op.Name2
	file, here := n[key]
	switch op.Kind {
	case Create:
		if here {
			return exists
		}
		n[key] = fmt.Sprint(res.Ino)
		if res.Unknown {
			n[key] = "?" + fmt.Sprint(op.Owner)
		}
	case Unlink:
		if !here {
			return missing
		}
		delete(n, key)
	case Lookup:
		if !here {
			return missing
		}
	case Link:
		// Linux looks at the name first. The file must still have one. One that was made
		// by a create without an answer has a number by now: whoever links it has seen it.
		if here {
			return exists
		}
		want := fmt.Sprint(op.Ino)
		named := false
		for _, f := range n {
			named = named || f == want
		}
		if !named {
			return missing
		}
		n[key] = want
	case Rename:
		other, there := n[key2]
		switch {
		case !here:
			return missing
		case op.Flags == NoReplace && there:
			return exists
		case op.Flags == Exchange && !there:
			return missing
		case file == other && there:
			// Two names of one file, or one name: nothing happens.
		case op.Flags == Exchange:
			n[key], n[key2] = other, file
		default:
			delete(n, key)
			n[key2] = file
		}
	}
	return ""
}

// contents of one file: a string.
var contents = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, op, res := state.(string), input.(Op), output.(Result)
		if res.Err != "" && !res.Unknown {
			return true, state // it says of itself that it changed nothing
		}
		switch op.Kind {
		case Read:
			if op.beside {
				return strings.HasPrefix(s, res.Data) || strings.HasPrefix(res.Data, s) && strings.Trim(res.Data[len(s):], "\x00") == "", state
			}
			return res.Data == s, state
		case Size:
			return res.N == int64(len(s)), state
		case Truncate:
			return true, resize(s, op.N)
		}
		end := op.Off + int64(len(op.Data))
		s = resize(s, max(int64(len(s)), end))
		return true, s[:op.Off] + op.Data + s[end:]
	},
}

func resize(s string, n int64) string {
	if int64(len(s)) >= n {
		return s[:n]
	}
	return s + strings.Repeat("\x00", int(n)-len(s))
}

// locks: who holds one, 0 nobody.
var locks = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		holder, op, res := state.(uint64), input.(Op), output.(Result)
		switch {
		case op.Kind == Unlock && holder == op.Owner:
			holder = 0
		case op.Kind == Unlock:
		case res.Unknown:
			if holder == 0 {
				holder = op.Owner
			}
		case res.Err == "EAGAIN":
			return holder != 0 && holder != op.Owner, holder
		case res.Err == "":
			return holder == 0 || holder == op.Owner, op.Owner
		}
		return true, holder
	},
}
