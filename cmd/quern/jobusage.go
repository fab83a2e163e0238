package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/offload"
	"quernfs/offload/jobfile"
)

// usageInfo is what --json prints for each group. Fields are only ever added.
type usageInfo struct {
	Day           string  `json:"day,omitempty"`
	UID           *uint32 `json:"uid,omitempty"`
	User          string  `json:"user,omitempty"`
	Kernel        string  `json:"kernel,omitempty"`
	Jobs          uint64  `json:"jobs"`
	Succeeded     uint64  `json:"succeeded"`
	Failed        uint64  `json:"failed"`
	Cancelled     uint64  `json:"cancelled"`
	Expired       uint64  `json:"expired"`
	Attempts      uint64  `json:"attempts"`
	TaskSeconds   float64 `json:"task_seconds"`
	CPUSeconds    float64 `json:"cpu_seconds"`
	DeviceSeconds float64 `json:"device_seconds"`
	BytesIn       uint64  `json:"bytes_in"`
	BytesOut      uint64  `json:"bytes_out"`
}

// otherKernels is what the kernels are called that have no sum of their own.
const otherKernels = "(others)"

var groupings = []string{"user", "kernel", "day"}

func newJobUsage() *cobra.Command {
	var by []string
	var since, until string
	cmd := withJobs(&cobra.Command{
		Use: "usage", Short: "Say who has used how much, of the jobs that have ended", Args: cobra.NoArgs,
		Long: `Say who has used how much, of the jobs that have ended: by user, kernel or day (of UTC),
or several of these. A mount tells a user of his own jobs, and root of all. What is said stays for five
years, however soon jobs are forgotten. /.compute/accounting has a line for each job.`,
		Example: `  quern job usage --mount ~/q
  quern job usage --by kernel --since 7d --mount ~/q
  quern job usage --by user,day --since 2026-01-01 --until 2026-01-31 --json --data ~/quern`,
	}, func(ctx context.Context, c offload.Meta, out io.Writer, _ []string, asJSON bool) error {
		for _, what := range by {
			if !slices.Contains(groupings, what) {
				return usagef("--by %s: it is one of %s%s", what, strings.Join(groupings, ", "), jobfile.DidYouMean(what, groupings))
			}
		}
		q := &wire.ListUsage{Everybody: true}
		now := time.Now()
		var err error
		if q.Since, err = dayFlag("since", since, now, 0); err != nil {
			return err
		}
		if q.Until, err = dayFlag("until", until, now, 1); err != nil {
			return err
		}
		list, err := usageBy(ctx, c, q, by)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, list)
		}
		return printUsage(out, list, by)
	})
	cmd.Flags().StringSliceVar(&by, "by", []string{"user"}, "what is told apart: "+strings.Join(groupings, ", "))
	cmd.Flags().StringVar(&since, "since", "", "the first day, such as 2026-01-31, or how many days before today, such as 7d (default: as long as there is)")
	cmd.Flags().StringVar(&until, "until", "", "the last day, likewise (default: today)")
	return cmd
}

// dayFlag is the number of a day since 1970, and more; 0 for "".
func dayFlag(name, text string, now time.Time, more int64) (int32, error) {
	if text == "" {
		return 0, nil
	}
	const day = 24 * 60 * 60
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if back, err := strconv.ParseUint(n, 10, 15); err == nil {
			return int32(now.Unix()/day - int64(back) + more), nil
		}
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil || at.Unix() < 0 {
		return 0, usagef("--%s %s: a day is needed, such as 2026-01-31, or a number of days such as 7d", name, text)
	}
	return int32(at.Unix()/day + more), nil
}

// usageBy adds sums up by what is told apart: days in their order, else what took
// most first.
func usageBy(ctx context.Context, c offload.Meta, q *wire.ListUsage, by []string) ([]*usageInfo, error) {
	type group struct {
		day    int32
		uid    uint32
		kernel string
	}
	days, users, kernels := slices.Contains(by, "day"), slices.Contains(by, "user"), slices.Contains(by, "kernel")
	groups := map[group]*usageInfo{}
	list := []*usageInfo{}
	err := offload.EachUsage(ctx, c, q, func(s *wire.UsageSum) {
		var g group
		if days {
			g.day = s.Day
		}
		if users {
			g.uid = s.Uid
		}
		if kernels {
			g.kernel = cmp.Or(s.Kernel, otherKernels)
		}
		u := groups[g]
		if u == nil {
			u = &usageInfo{Kernel: g.kernel}
			if days {
				u.Day = time.Unix(int64(s.Day)*24*60*60, 0).UTC().Format(time.DateOnly)
			}
			if users {
				u.UID, u.User = &s.Uid, offload.UserName(s.Uid)
			}
			groups[g] = u
			list = append(list, u)
		}
		u.add(s)
	})
	slices.SortStableFunc(list, func(a, b *usageInfo) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(b.TaskSeconds, a.TaskSeconds), cmp.Compare(a.User, b.User), cmp.Compare(a.Kernel, b.Kernel))
	})
	return list, err
}

func (u *usageInfo) add(s *wire.UsageSum) {
	u.Jobs += s.Jobs
	u.Succeeded += s.Succeeded
	u.Failed += s.Failed
	u.Cancelled += s.Cancelled
	u.Expired += s.Expired
	u.Attempts += s.Attempts
	u.TaskSeconds += float64(s.TaskNs) / 1e9
	u.CPUSeconds += float64(s.CpuNs) / 1e9
	u.DeviceSeconds += float64(s.DeviceNs) / 1e9
	u.BytesIn += s.BytesIn
	u.BytesOut += s.BytesOut
}

func printUsage(out io.Writer, list []*usageInfo, by []string) error {
	var header []any
	for _, what := range by {
		header = append(header, strings.ToUpper(what))
	}
	t := newTable(out, append(header, "JOBS", "FAILED", "TASK HOURS", "CPU HOURS", "DEVICE HOURS", "READ", "WRITTEN")...)
	hours := func(seconds float64) string { return fmt.Sprintf("%.3f", seconds/3600) }
	for _, u := range list {
		cells := []any{}
		for _, what := range by {
			cells = append(cells, map[string]string{"user": u.User, "kernel": u.Kernel, "day": u.Day}[what])
		}
		t.row(append(cells, u.Jobs, u.Failed+u.Expired, hours(u.TaskSeconds), hours(u.CPUSeconds), hours(u.DeviceSeconds), size(u.BytesIn), size(u.BytesOut))...)
	}
	return t.flush()
}
