package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"quernfs/meta"
)

// TestLimitFlags: what an administrator says of jobs is what the metadata servers get.
func TestLimitFlags(t *testing.T) {
	parse := func(args ...string) (meta.Limits, error) {
		var f limitFlags
		flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
		f.add(flags)
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		return f.limits()
	}
	if got, err := parse(); err != nil || got != meta.DefaultLimits {
		t.Errorf("%+v, %v", got, err)
	}
	want := meta.Limits{Jobs: 1, Tasks: 2, Bytes: 3 << 20, Ended: 4, TTL: 36 * time.Hour}
	if got, err := parse("--jobs-per-user=1", "--tasks-per-user=2", "--job-bytes-per-user=3MiB", "--ended-jobs-per-user=4", "--job-ttl=36h"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := parse("--job-ttl=0", "--ended-jobs-per-user=0"); err != nil || got.TTL != 0 || got.Ended != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, arg := range []string{"--job-ttl=soon", "--job-ttl=-1h", "--job-ttl=9999999d", "--job-bytes-per-user=much"} {
		if got, err := parse(arg); err == nil {
			t.Errorf("%s: %+v", arg, got)
		}
	}
}
