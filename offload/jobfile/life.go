package jobfile

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Limits of the fields here.
const (
	MaxAfter    = 64
	MaxArray    = 100_000
	MaxPriority = 1000
	MaxTTL      = 10 * 366 * 24 * time.Hour
	Forever     = time.Duration(-1) // as a TTL
)

// After is a job that has to end before this one begins.
type After struct {
	Name string
	When string // ok, failed, any
	Line int
}

// IfExists says what becomes of a result whose name is taken.
type IfExists string

const (
	Replace IfExists = "replace"
	Fail    IfExists = "fail"
	Skip    IfExists = "skip"
)

// Visibility says who may read what a job is, does and leaves, beside its owner.
type Visibility string

const (
	Owner Visibility = "owner"
	Group Visibility = "group"
	All   Visibility = "all"
)

// Life is when a job begins, how urgent it is, and how long it is kept.
type Life struct {
	After         []After
	Array         int   // tasks that get all inputs each; 0: none
	arrayIDs      []ids // none: 0 to Array-1
	Priority      int
	Deadline      time.Time     // zero: none
	DeadlineAfter time.Duration // from submission; 0: none
	TTL           time.Duration // after its end; 0: as the administrator says, Forever: it is kept
	IfExists      IfExists
	Visibility    Visibility
	Memoise       bool // take over results of earlier tasks that were the same
}

func lifeFields(s *Spec) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"after": func(n *yaml.Node) (err error) {
			s.After, err = after(n)
			return err
		},
		"priority": func(n *yaml.Node) (err error) {
			s.Priority, err = whole(n, "priority", -MaxPriority, MaxPriority)
			return err
		},
		"deadline": func(n *yaml.Node) error {
			if n.Kind == yaml.ScalarNode {
				if at, err := time.Parse(time.RFC3339, n.Value); err == nil {
					s.Deadline = at
					return nil
				}
				if d, ok := Duration(n.Value); ok && d >= time.Second && d <= MaxTTL {
					s.DeadlineAfter = d
					return nil
				}
			}
			return Errorf(n.Line, "deadline must be a time such as 2026-01-31T18:00:00Z, or a duration from submission such as 90m, 12h or 7d, not %s", describe(n))
		},
		"ttl": func(n *yaml.Node) error {
			if n.Kind == yaml.ScalarNode {
				if n.Value == "never" {
					s.TTL = Forever
					return nil
				}
				if d, ok := Duration(n.Value); ok && d >= time.Second && d <= MaxTTL {
					s.TTL = d
					return nil
				}
			}
			return Errorf(n.Line, "ttl must be a duration such as 90m, 12h or 7d, or never, not %s", describe(n))
		},
		"memoise": func(n *yaml.Node) (err error) {
			s.Memoise, err = truth(n, "memoise")
			return err
		},
		"visibility": func(n *yaml.Node) error {
			v, err := text(n, "visibility")
			if err != nil {
				return err
			}
			if s.Visibility = Visibility(v); !slices.Contains([]Visibility{Owner, Group, All}, s.Visibility) {
				return Errorf(n.Line, "visibility must be owner, group or all, not %q", shorten(v))
			}
			return nil
		},
		"if_exists": func(n *yaml.Node) error {
			v, err := text(n, "if_exists")
			if err != nil {
				return err
			}
			if s.IfExists = IfExists(v); !slices.Contains([]IfExists{Replace, Fail, Skip}, s.IfExists) {
				return Errorf(n.Line, "if_exists must be replace, fail or skip, not %q", shorten(v))
			}
			return nil
		},
		"output": func(n *yaml.Node) (err error) {
			if s.Output, err = text(n, "output"); err != nil {
				return err
			}
			s.OutputLine = n.Line
			if strings.HasPrefix(s.Output, "/") {
				s.Output, err = outputPath(n.Line, s.Output)
				return err
			}
			if strings.HasPrefix(s.Output, ".") {
				return Errorf(n.Line, "output must not begin with a dot, %q does", shorten(s.Output))
			}
			return fileName(n.Line, "output", s.Output)
		},
	}
}

// checkLife is what can be said once all fields are read.
func (s *Spec) checkLife() error {
	dir, _ := s.OutputDir()
	switch {
	case dir == "" && s.IfExists != "":
		return Errorf(0, "if_exists is for results in a directory of the mount: give \"output: /DIRECTORY/NAME\"")
	case s.Array > 0 && (s.Split != SplitFile && s.Split != SplitNone || s.TaskBytes > 0):
		return Errorf(0, "array and split are both given; each task of an array gets all inputs")
	case s.Array > 0 && s.OutputPerFile():
		return Errorf(s.OutputLine, "output names each result for its input, but each task of an array gets all inputs: use {task} instead")
	case s.OutputPerFile() && s.Reduce != nil:
		return Errorf(s.OutputLine, "output names each result for its input, but a reduce step leaves one: use a name without %s", strings.Join(ofInput, " "))
	case s.OutputPerFile() && s.Split != SplitFile:
		return Errorf(s.OutputLine, "output names each result for its input, so each task has to be one file: leave split away")
	}
	if s.IfExists == "" {
		s.IfExists = Replace
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

var placeholders = []string{"{file}", "{name}", "{ext}", "{dir}", "{path}", "{job}", "{task}"}

// ofInput are those that stand for something of the input.
var ofInput = []string{"{file}", "{name}", "{ext}", "{dir}", "{path}"}

// outputPath checks a pattern of results in the mount.
func outputPath(line int, p string) (string, error) {
	clean, err := absolute(line, "output", p)
	if err != nil {
		return "", err
	}
	for _, v := range placeholder.FindAllString(clean, -1) {
		if !slices.Contains(placeholders, v) {
			return "", Errorf(line, "output has %s%s; there are %s", shorten(v), DidYouMean(v, placeholders), strings.Join(placeholders, " "))
		}
	}
	if clean == "/" || strings.HasSuffix(p, "/") {
		return "", Errorf(line, "output must end in a file name, such as %s", path.Join(clean, "{file}"))
	}
	_, rest := splitOutput(clean)
	for _, name := range strings.Split(rest, "/") {
		if err := fileName(line, "output", name); err != nil {
			return "", err
		}
	}
	if last := path.Base(clean); strings.HasPrefix(last, ".part.") {
		return "", Errorf(line, "output must not begin with .part., %q does", shorten(last))
	}
	return clean, nil
}

// splitOutput divides a pattern of results in the mount into the directory that
// has to be there, which has no placeholder, and the rest.
func splitOutput(clean string) (dir, rest string) {
	at := strings.LastIndexByte(clean, '/')
	if i := placeholder.FindStringIndex(clean); i != nil {
		at = min(at, strings.LastIndexByte(clean[:i[0]], '/'))
	}
	return cmp.Or(clean[:at], "/"), clean[at+1:]
}

// OutputDir is the directory of the mount that results go to, "" for the job's
// own, and the name or pattern of their paths below it.
func (s *Spec) OutputDir() (dir, pattern string) {
	if !strings.HasPrefix(s.Output, "/") {
		return "", s.Output
	}
	return splitOutput(s.Output)
}

// OutputPerFile says whether results are named for the one input of their task.
func (s *Spec) OutputPerFile() bool {
	return s.outputHas(ofInput...)
}

// OutputNumbered says whether the number of a task is in the name of its result.
func (s *Spec) OutputNumbered() bool { return s.outputHas("{task}") }

func (s *Spec) outputHas(any ...string) bool {
	dir, pattern := s.OutputDir()
	return dir != "" && slices.ContainsFunc(any, func(v string) bool { return strings.Contains(pattern, v) })
}

// OutputName is what the result of a task is called, a path below OutputDir:
// input is the path of its first input, many says that other tasks leave results
// of the same pattern.
func (s *Spec) OutputName(job, input string, task uint32, many bool) string {
	dir, pattern := s.OutputDir()
	if dir == "" || !placeholder.MatchString(pattern) {
		if many {
			return fmt.Sprintf("%s.%05d", pattern, task)
		}
		return pattern
	}
	below := s.below(input)
	file, above := path.Base(below), path.Dir(below)
	stem, ext := file, ""
	if i := strings.LastIndexByte(file, '.'); i > 0 {
		stem, ext = file[:i], file[i+1:]
	}
	name := strings.NewReplacer("{file}", file, "{name}", stem, "{ext}", ext, "{dir}", above, "{path}", below,
		"{job}", job, "{task}", fmt.Sprintf("%05d", task)).Replace(pattern)
	if many && !s.OutputNumbered() && !s.OutputPerFile() {
		name += fmt.Sprintf(".%05d", task)
	}
	return tidy(name)
}

// tidy leaves the empty names and those of one dot out of a path: what {dir} and
// {ext} may be.
func tidy(p string) string {
	var names []string
	for name := range strings.SplitSeq(p, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return strings.Join(names, "/")
}

// below is the path of an input from where the tree of the entry that names it
// begins.
func (s *Spec) below(p string) string {
	for _, in := range s.Inputs {
		if rest, ok := in.below(p); ok {
			return rest
		}
	}
	return path.Base(p)
}

// below is the path of a file that this entry names from where its tree begins:
// after the "/./" in it; else a directory that it names, or the part of a pattern
// before the first wildcard, or the directory that the file lies in.
func (in Input) below(p string) (rest string, ok bool) {
	names := strings.Split(p, "/")[1:]
	begins := len(strings.Split(strings.Trim(in.Pattern, "/"), "/"))
	switch {
	case Wild(in.Pattern):
		if !Match(in.Pattern, p) {
			return "", false
		}
		begins = len(strings.Split(strings.Trim(Base(in.Pattern), "/"), "/"))
		if Base(in.Pattern) == "/" {
			begins = 0
		}
	case p == in.Pattern:
		begins = len(names) - 1
	case in.Pattern == "/":
		begins = 0
	case !strings.HasPrefix(p, in.Pattern+"/"):
		return "", false
	}
	if in.Marked {
		begins = in.Above
	}
	return strings.Join(names[min(begins, len(names)-1):], "/"), true
}

func after(n *yaml.Node) ([]After, error) {
	bad := func(line int, what *yaml.Node) error {
		return Errorf(line, "after must be a list of jobs, or a mapping such as {fetch: ok, cleanup: any}, not %s", describe(what))
	}
	var out []After
	add := func(name, when *yaml.Node) error {
		a := After{Line: name.Line, When: "ok"}
		var err error
		if a.Name, err = text(name, "a job in after"); err != nil {
			return err
		}
		if err := fileName(name.Line, "a job in after", a.Name); err != nil {
			return err
		}
		if when != nil {
			if a.When, err = text(when, "after."+a.Name); err != nil {
				return err
			}
			if !slices.Contains([]string{"ok", "failed", "any"}, a.When) {
				return Errorf(when.Line, "after.%s must be ok, failed or any, not %q", a.Name, shorten(a.When))
			}
		}
		if slices.ContainsFunc(out, func(b After) bool { return b.Name == a.Name }) {
			return Errorf(name.Line, "after has %q twice", a.Name)
		}
		out = append(out, a)
		return nil
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return out, add(n, nil)
	case n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			if err := add(c, nil); err != nil {
				return nil, err
			}
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := add(n.Content[i], n.Content[i+1]); err != nil {
				return nil, err
			}
		}
	default:
		return nil, bad(n.Line, n)
	}
	if len(out) > MaxAfter {
		return nil, Errorf(n.Line, "after has %d entries; at most %d are allowed", len(out), MaxAfter)
	}
	return out, nil
}

// whole reads a number.
func whole(n *yaml.Node, field string, least, most int) (int, error) {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < least || v > most {
		return 0, Errorf(n.Line, "%s must be a number from %d to %d, not %s", field, least, most, describe(n))
	}
	return v, nil
}

// Duration reads a duration that may be in days: 90m, 12h, 7d.
func Duration(s string) (time.Duration, bool) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		v, err := strconv.Atoi(n)
		if err != nil || v < 0 || v > int(MaxTTL/(24*time.Hour)) {
			return 0, false
		}
		return time.Duration(v) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}
