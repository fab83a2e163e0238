package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"quernfs/meta"
)

// limitFlags say what the jobs of a user may amount to.
type limitFlags struct {
	jobs  uint32
	tasks uint64
	bytes string
}

func (f *limitFlags) add(flags *pflag.FlagSet) {
	d := meta.DefaultLimits
	flags.Uint32Var(&f.jobs, "jobs-per-user", d.Jobs, "how many jobs that have not ended a user other than root may have (0: any number)")
	flags.Uint64Var(&f.tasks, "tasks-per-user", d.Tasks, "how many tasks these may have (0: any number)")
	flags.StringVar(&f.bytes, "job-bytes-per-user", fmt.Sprint(d.Bytes>>20, "MiB"), "how large their job files, and the names of their inputs, may be (0: any size)")
}

func (f *limitFlags) limits() (meta.Limits, error) {
	n, err := parseSize(f.bytes)
	if err != nil || n < 0 {
		return meta.Limits{}, usagef("--job-bytes-per-user %s: a size is needed, such as 256MiB", f.bytes)
	}
	return meta.Limits{Jobs: f.jobs, Tasks: f.tasks, Bytes: uint64(n)}, nil
}
