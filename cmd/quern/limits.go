package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"quernfs/meta"
	"quernfs/offload/jobfile"
)

// limitFlags say what the jobs of a user may amount to, and how long they are kept.
type limitFlags struct {
	jobs  uint32
	tasks uint64
	bytes string
	ended uint64
	ttl   string
}

func (f *limitFlags) add(flags *pflag.FlagSet) {
	d := meta.DefaultLimits
	flags.Uint32Var(&f.jobs, "jobs-per-user", d.Jobs, "how many jobs that have not ended a user other than root may have (0: any number)")
	flags.Uint64Var(&f.tasks, "tasks-per-user", d.Tasks, "how many tasks these may have (0: any number)")
	flags.Uint64Var(&f.ended, "ended-jobs-per-user", d.Ended, "how many jobs that have ended are kept of a user; the oldest of more are forgotten (0: any number)")
	flags.StringVar(&f.ttl, "job-ttl", fmt.Sprint(int(d.TTL.Hours()/24), "d"), "how long after its end a job is kept whose file does not say (0: for ever)")
	flags.StringVar(&f.bytes, "job-bytes-per-user", fmt.Sprint(d.Bytes>>20, "MiB"), "how large their job files, and the names of their inputs, may be (0: any size)")
}

func (f *limitFlags) limits() (meta.Limits, error) {
	n, err := parseSize(f.bytes)
	if err != nil || n < 0 {
		return meta.Limits{}, usagef("--job-bytes-per-user %s: a size is needed, such as 256MiB", f.bytes)
	}
	ttl, ok := jobfile.Duration(f.ttl)
	if !ok || ttl < 0 {
		return meta.Limits{}, usagef("--job-ttl %s: a duration is needed, such as 12h or 30d, or 0", f.ttl)
	}
	return meta.Limits{Jobs: f.jobs, Tasks: f.tasks, Bytes: uint64(n), Ended: f.ended, TTL: ttl}, nil
}
