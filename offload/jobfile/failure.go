package jobfile

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Failure is what becomes of a job one of whose tasks has failed for good, and how many
// of its tasks run at once.
type Failure struct {
	Continue   bool    // the others go on
	MaxFailed  int     // with more the job ends; 0: MaxShare decides
	MaxShare   float64 // of its tasks, 0 to 1; 0: any number
	ReduceRest bool    // the reduce step runs over what the others left
	Parallel   int     // 0: any number

	arrayParallel int // the same, by array; 0: it says nothing

	line int // of the first of these that needs on_failure: continue; 0: none
}

// MostFailed is how many of n tasks may fail without ending the job; 0: any number.
func (f *Failure) MostFailed(n int) int {
	if f.MaxShare > 0 {
		return max(1, int(math.Floor(f.MaxShare*float64(n))))
	}
	return f.MaxFailed
}

// MaxTaskID is the highest value of QUERN_TASK.
const MaxTaskID = 1<<31 - 1

// ids are the values of QUERN_TASK from First to Last, each Step after the one before.
type ids struct{ first, last, step int }

func (r ids) count() int { return (r.last-r.first)/r.step + 1 }

// TaskID is the value of QUERN_TASK of a job's task n.
func (l *Life) TaskID(n int) int {
	for _, r := range l.arrayIDs {
		if c := r.count(); n >= c {
			n -= c
			continue
		}
		return r.first + n*r.step
	}
	return n
}

func failureFields(s *Spec) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"on_failure": func(n *yaml.Node) error {
			v, err := text(n, "on_failure")
			if err != nil {
				return err
			}
			if v != "stop" && v != "continue" {
				return Errorf(n.Line, "on_failure must be stop or continue, not %q", shorten(v))
			}
			s.Continue = v == "continue"
			return nil
		},
		"max_failed": func(n *yaml.Node) (err error) {
			s.Failure.line = cmp.Or(s.Failure.line, n.Line)
			if share, ok := strings.CutSuffix(n.Value, "%"); ok && n.Kind == yaml.ScalarNode {
				v, err := strconv.ParseFloat(share, 64)
				if err != nil || !(v > 0 && v <= 100) {
					return Errorf(n.Line, "max_failed must be a number of tasks or a share of them such as 5%%, not %s", describe(n))
				}
				s.MaxShare = v / 100
				return nil
			}
			s.MaxFailed, err = whole(n, "max_failed", 1, MaxArray)
			return err
		},
		"reduce_rest": func(n *yaml.Node) (err error) {
			if s.ReduceRest, err = truth(n, "reduce_rest"); s.ReduceRest {
				s.Failure.line = cmp.Or(s.Failure.line, n.Line)
			}
			return err
		},
		"parallel": func(n *yaml.Node) (err error) {
			s.Parallel, err = whole(n, "parallel", 1, MaxArray)
			return err
		},
		"array": func(n *yaml.Node) (err error) {
			if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
				return s.array(n)
			}
			s.Array, err = whole(n, "array", 1, MaxArray)
			return err
		},
	}
}

// array reads a list of task numbers: "1,3,7-100:2%4", at most four at once.
func (s *Spec) array(n *yaml.Node) error {
	bad := func(what string) error {
		return Errorf(n.Line, "array must be a number, or a list of numbers and ranges such as \"1,3,7-100%%4\", not %q: %s", shorten(n.Value), what)
	}
	number := func(t string) (int, bool) {
		v, err := strconv.ParseUint(t, 10, 31)
		return int(v), err == nil
	}
	list, most, limited := strings.Cut(n.Value, "%")
	if limited {
		v, ok := number(most)
		if !ok || v < 1 || v > MaxArray {
			return bad("after % comes how many tasks run at once")
		}
		s.arrayParallel = v
	}
	for part := range strings.SplitSeq(list, ",") {
		span, step, stepped := strings.Cut(part, ":")
		from, to, ranged := strings.Cut(span, "-")
		r := ids{step: 1}
		ok, ok2, ok3 := false, true, true
		r.first, ok = number(from)
		if r.last = r.first; ranged {
			r.last, ok2 = number(to)
		}
		if stepped {
			r.step, ok3 = number(step)
		}
		if !ok || !ok2 || !ok3 || r.last < r.first || r.step < 1 || stepped && !ranged {
			return bad(strconv.Quote(shorten(part)) + " is no number and no range")
		}
		s.Array += r.count()
		if s.arrayIDs = append(s.arrayIDs, r); s.Array > MaxArray {
			return bad("at most " + strconv.Itoa(MaxArray) + " tasks are allowed")
		}
	}
	all := make([]int, s.Array)
	for i := range all {
		all[i] = s.TaskID(i)
	}
	slices.Sort(all)
	for i := range all[1:] {
		if all[i] == all[i+1] {
			return bad(strconv.Itoa(all[i]) + " is there twice")
		}
	}
	return nil
}

// checkFailure is what can be said once all fields are read.
func (s *Spec) checkFailure() error {
	switch {
	case s.Failure.line > 0 && !s.Continue:
		return Errorf(s.Failure.line, "max_failed and reduce_rest are for \"on_failure: continue\"")
	case s.ReduceRest && s.Reduce == nil:
		return Errorf(s.Failure.line, "reduce_rest is about a reduce step, and there is none: give \"reduce: {}\"")
	case s.Parallel > 0 && s.arrayParallel > 0 && s.Parallel != s.arrayParallel:
		return Errorf(0, "parallel is %d, and array says %d: give one of them", s.Parallel, s.arrayParallel)
	case (s.Parallel > 0 || s.arrayParallel > 0) && s.Gang:
		return Errorf(s.GangLine, "a gang starts all tasks together, and parallel says how many run at once: give one of them")
	}
	s.Parallel = max(s.Parallel, s.arrayParallel)
	return nil
}
