package lease

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

// TestScripts runs the scenarios in testdata. A line is a command; the lines
// after it that start with ">" are all that it must bring about, in order:
//
//	join S…                     sessions that live until second 10
//	renew S SECOND
//	grant S INO MODE            a lease along with an answer: its mode, or none
//	begin OP S lock DIR/NAME…   queues for names
//	begin OP S KIND INO [MODE | NAME…]
//	claim OP KIND INO [MODE | NAME…]   after its names are held
//	end OP
//	take OP INO MODE            the grant of a ready Take
//	answer S INO MODE [open]    to the oldest recall about INO
//	release S INO
//	drop S
//	overdue SECOND              sessions that hold somebody up and have run out
//	open OP INO                 who has the victim open
//	holds S INO
//	again S                     its stream came back
//	reclaim S INO=MODE…
//
// Modes are none, open, read and write; kinds peek, change, victim, names, take.
func TestScripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := &script{table: New(100), ops: map[string]*Op{}, owed: map[string][]*wire.Recall{}}
			var got []string
			flush := func(line int) {
				if len(got) > 0 {
					t.Fatalf("%s:%d: also happened: %q", file, line, got)
				}
			}
			lines, n := bufio.NewScanner(f), 0
			for lines.Scan() {
				n++
				line := strings.TrimSpace(strings.SplitN(lines.Text(), "#", 2)[0])
				switch {
				case line == "":
				case strings.HasPrefix(line, ">"):
					want := strings.TrimSpace(line[1:])
					if len(got) == 0 || got[0] != want {
						t.Fatalf("%s:%d: want %q, happened: %q", file, n, want, got)
					}
					got = got[1:]
				default:
					flush(n)
					got = s.run(strings.Fields(line))
				}
			}
			flush(n)
		})
	}
}

type script struct {
	table *Table
	ops   map[string]*Op
	owed  map[string][]*wire.Recall // "session ino"
}

func num(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func mode(s string) wire.Mode { return wire.Mode(wire.Mode_value[strings.ToUpper(s)]) }

func lower(m wire.Mode) string { return strings.ToLower(m.String()) }

func claimOf(f []string) Claim {
	c := Claim{Ino: num(f[1])}
	switch f[0] {
	case "peek":
		c.Kind = Peek
	case "change":
		c.Kind = Change
	case "victim":
		c.Kind, c.Victim = Change, true
	case "names":
		c.Kind, c.Names = Names, f[2:]
	case "take":
		c.Kind, c.Mode = Take, mode(f[2])
	default:
		panic(f[0])
	}
	return c
}

func (s *script) run(f []string) (out []string) {
	show := func(g *wire.Grant) {
		if g == nil {
			out = append(out, "none")
		} else {
			out = append(out, lower(g.Mode))
		}
	}
	t := s.table
	switch f[0] {
	case "join":
		for _, id := range f[1:] {
			t.Join(num(id), time.Unix(10, 0))
		}
	case "renew":
		t.Renew(num(f[1]), time.Unix(int64(num(f[2])), 0))
	case "grant":
		show(t.Grant(num(f[1]), num(f[2]), mode(f[3]), nil))
	case "begin":
		if f[3] == "lock" {
			var names []Name
			for _, n := range f[4:] {
				dir, name, _ := strings.Cut(n, "/")
				names = append(names, Name{num(dir), name})
			}
			s.ops[f[1]] = t.Lock(num(f[2]), names...)
			break
		}
		s.ops[f[1]] = t.Lock(num(f[2]))
		t.Take()
		t.Claim(s.ops[f[1]], claimOf(f[3:]))
	case "claim":
		t.Claim(s.ops[f[1]], claimOf(f[2:]))
	case "end":
		t.End(s.ops[f[1]])
		delete(s.ops, f[1])
	case "take":
		show(t.Grant(s.ops[f[1]].Session, num(f[2]), mode(f[3]), s.ops[f[1]]))
	case "answer":
		key := f[1] + " " + f[2]
		r := s.owed[key][0]
		s.owed[key] = s.owed[key][1:]
		t.Recalled(num(f[1]), &wire.Recalled{Id: r.Id, Ino: r.Ino, Mode: mode(f[3]), Open: len(f) > 4})
	case "release":
		t.Release(num(f[1]), []*wire.Grant{{Ino: num(f[2]), Id: ^uint64(0)}})
	case "drop":
		t.Drop(num(f[1]))
	case "overdue":
		out = append(out, fmt.Sprint(t.Overdue(time.Unix(int64(num(f[1])), 0))))
	case "open":
		out = append(out, fmt.Sprint(s.ops[f[1]].Open(num(f[2]))))
	case "holds":
		out = append(out, lower(t.Mode(num(f[1]), num(f[2]))))
	case "again":
		for k := range s.owed {
			if strings.HasPrefix(k, f[1]+" ") {
				delete(s.owed, k)
			}
		}
		t.Again(num(f[1]))
	case "reclaim":
		var held []*wire.Grant
		for _, h := range f[2:] {
			ino, m, _ := strings.Cut(h, "=")
			held = append(held, &wire.Grant{Ino: num(ino), Mode: mode(m)})
		}
		for _, g := range t.Reclaim(num(f[1]), held) {
			out = append(out, fmt.Sprintf("%d=%s", g.Ino, lower(g.Mode)))
		}
	default:
		panic(f[0])
	}
	sends, woken := t.Take()
	for _, x := range sends {
		key := fmt.Sprintf("%d %d", x.Session, x.Recall.Ino)
		s.owed[key] = append(s.owed[key], x.Recall)
		line := fmt.Sprintf("recall %d %d %s", x.Session, x.Recall.Ino, lower(x.Recall.Mode))
		for _, n := range x.Recall.Names {
			line += " " + n
		}
		if x.Recall.Victim {
			line += " victim"
		}
		out = append(out, line)
	}
	for _, op := range woken {
		for name, o := range s.ops {
			if o == op {
				what := "locked"
				if op.Ready() {
					what = "ready"
				}
				out = append(out, what+" "+name)
			}
		}
	}
	return out
}
