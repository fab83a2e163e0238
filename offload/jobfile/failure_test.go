package jobfile

import (
	"fmt"
	"testing"
)

func TestFailureFields(t *testing.T) {
	for fields, want := range map[string]string{
		"on_failure: continue":                                "continue=true most=0 rest=false parallel=0",
		"on_failure: stop":                                    "continue=false most=0 rest=false parallel=0",
		"on_failure: continue\nmax_failed: 7":                 "continue=true most=7 rest=false parallel=0",
		"on_failure: continue\nmax_failed: 5%":                "continue=true most=10 rest=false parallel=0",
		"on_failure: continue\nmax_failed: 0.1%":              "continue=true most=1 rest=false parallel=0",
		"on_failure: continue\nreduce: {}\nreduce_rest: true": "continue=true most=0 rest=true parallel=0",
		"parallel: 3":                             "continue=false most=0 rest=false parallel=3",
		"on_failure: later":                       "line 4: on_failure must be stop or continue, not \"later\"",
		"max_failed: 3":                           "line 4: max_failed and reduce_rest are for \"on_failure: continue\"",
		"reduce: {}\nreduce_rest: true":           "line 5: max_failed and reduce_rest are for \"on_failure: continue\"",
		"on_failure: continue\nreduce_rest: true": "line 5: reduce_rest is about a reduce step, and there is none: give \"reduce: {}\"",
		"on_failure: continue\nmax_failed: 0":     "line 5: max_failed must be a number from 1 to 100000, not the number 0",
		"on_failure: continue\nmax_failed: 101%":  "line 5: max_failed must be a number of tasks or a share of them such as 5%, not \"101%\"",
		"parallel: 0":                             "line 4: parallel must be a number from 1 to 100000, not the number 0",
		"gang: true\nparallel: 2":                 "line 4: a gang starts all tasks together, and parallel says how many run at once: give one of them",
	} {
		s, err := Parse([]byte("version: 1\nkernel: cat\ninputs: /x\n" + fields + "\n"))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintf("continue=%v most=%d rest=%v parallel=%d", s.Continue, s.MostFailed(200), s.ReduceRest, s.Parallel)
		}
		if got != want {
			t.Errorf("%q: %s\nwant %s", fields, got, want)
		}
	}
}

func TestArrayLists(t *testing.T) {
	for list, want := range map[string]string{
		`7`:                    "7 tasks, 0 at once: 0 1 2 3 4 5 6",
		`"1,3,7-10%4"`:         "6 tasks, 4 at once: 1 3 7 8 9 10",
		`"0-10:5"`:             "3 tasks, 0 at once: 0 5 10",
		`"5"`:                  "1 tasks, 0 at once: 5",
		`"9,1"`:                "2 tasks, 0 at once: 9 1",
		`"1-3,2"`:              "refused",
		`"3-1"`:                "refused",
		`"1,,2"`:               "refused",
		`""`:                   "refused",
		`"1%0"`:                "refused",
		`"1%x"`:                "refused",
		`"1:2"`:                "refused",
		`"-1"`:                 "refused",
		`"1-2:0"`:              "refused",
		`"0-100000"`:           "refused",
		`"99999999999"`:        "refused",
		`"0-2147483647"`:       "refused",
		"\"1%2\"\nparallel: 3": "refused",
	} {
		s, err := Parse([]byte("version: 1\nkernel: cat\narray: " + list + "\n"))
		got := "refused"
		if err == nil {
			got = fmt.Sprintf("%d tasks, %d at once:", s.Array, s.Parallel)
			for n := range s.Array {
				got += fmt.Sprint(" ", s.TaskID(n))
			}
		}
		if got != want {
			t.Errorf("%s: %s, %v\nwant %s", list, got, err, want)
		}
	}
}
