package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
	"quernfs/offload"
)

// taskLog is what --json prints of a task's output.
type taskLog struct {
	N      uint32 `json:"n"`
	State  string `json:"state"`
	Host   string `json:"host"`
	Exit   int32  `json:"exit"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

func newJobLogs() *cobra.Command {
	task, follow := -1, false
	cmd := withJobs(&cobra.Command{
		Use: "logs JOB", Short: "Show what the tasks of a job have printed",
		Long: `Show what the tasks of a job have printed: through a mount all that was kept (log_limit
in the job file), with --data or --meta the last 8 KiB of each task.`,
		Example: `  quern job logs top --mount ~/q
  quern job logs top --task 3 --follow --mount ~/q`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
		job, tasks, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		if task >= 0 {
			if task >= len(tasks) {
				return fmt.Errorf("job %s has no task %d: it has %s", args[0], task, count(len(tasks), "task"))
			}
			tasks = tasks[task : task+1]
		}
		if follow {
			if mountOf(ctx) == "" || asJSON {
				return usagef("--follow needs a mount, and cannot be had as JSON")
			}
			return followLogs(ctx, c, out, job.GetId(), task)
		}
		logs := []taskLog{}
		for _, t := range tasks {
			l := taskLog{t.GetN(), t.GetState(), t.GetHost(), t.GetExit(), string(t.GetStdoutTail()), string(t.GetStderrTail())}
			if dir := mountOf(ctx); dir != "" {
				for stream, text := range map[string]*string{"stdout": &l.Stdout, "stderr": &l.Stderr} {
					raw, err := os.ReadFile(logPath(dir, job.GetId(), l.N, stream))
					if err != nil {
						return err
					}
					*text = string(raw)
				}
			}
			if asJSON {
				logs = append(logs, l)
			} else if err := l.print(out); err != nil {
				return err
			}
		}
		if asJSON {
			return printJSON(out, logs)
		}
		return nil
	})
	cmd.Flags().IntVar(&task, "task", -1, "only this task")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print what the tasks print while they run, until the job has ended; through a mount")
	return cmd
}

func (l taskLog) print(out io.Writer) error {
	fmt.Fprintf(out, "==> task %d on %s: %s, exit status %d <==\n", l.N, l.Host, l.State, l.Exit)
	for _, text := range []string{l.Stderr, l.Stdout} {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
	return nil
}

// logPath is where a mount shows what a task has printed.
func logPath(mount string, job uint64, task uint32, stream string) string {
	return filepath.Join(mount, ".compute", "jobs", fmt.Sprint(job), "tasks", fmt.Sprint(task), stream)
}

// followEvery is how often the logs that grow are looked at.
const followEvery = 500 * time.Millisecond

// followLogs prints what the tasks of a job (-1: all) have printed and print, until
// the job has ended. A task that begins anew begins its log anew.
func followLogs(ctx context.Context, c offload.Meta, out io.Writer, id uint64, only int) error {
	type key struct {
		n      uint32
		stream string
	}
	type place struct {
		attempt uint32
		off     int64
	}
	at := map[key]place{}
	last := ""
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		// Whether it has ended is asked before the logs are read, so that all is read.
		job, tasks, err := offload.GetJob(ctx, c, fmt.Sprint(id))
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if only >= 0 && t.GetN() != uint32(only) || t.GetAttempt() == 0 {
				continue
			}
			for _, stream := range []string{"stderr", "stdout"} {
				k := key{t.GetN(), stream}
				p := at[k]
				if p.attempt != t.GetAttempt() {
					p = place{attempt: t.GetAttempt()}
				}
				if offload.Ended(t.GetState()) && p.off < 0 {
					continue // all of it was read
				}
				text, err := readFrom(logPath(mountOf(ctx), id, t.GetN(), stream), p.off)
				if err != nil {
					return err
				}
				if title := fmt.Sprintf("==> task %d, attempt %d on %s: %s <==\n", t.GetN(), t.GetAttempt(), t.GetHost(), stream); len(text) > 0 && title != last {
					last = title
					fmt.Fprint(out, title)
				}
				if _, err := out.Write(text); err != nil {
					return err
				}
				if p.off += int64(len(text)); offload.Ended(t.GetState()) {
					p.off = -1
				}
				at[k] = p
			}
		}
		if offload.Ended(job.GetState()) {
			fmt.Fprintf(out, "==> job %d is %s: %s <==\n", id, job.GetState(), job.GetReason())
			return nil
		}
		if nobodyReads(out) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// nobodyReads: out is a pipe whose reader has gone, as head does when it has seen
// enough. A task that prints nothing more would not let us notice by writing.
func nobodyReads(out io.Writer) bool {
	f, ok := out.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLERR != 0
}

// readFrom reads a file from an offset on.
func readFrom(path string, off int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, off, math.MaxInt64-off))
}

// topInfo is what --json prints of top.
type topInfo struct {
	Hosts []hostInfo `json:"hosts"`
	Jobs  []jobInfo  `json:"jobs"`
}

type hostInfo struct {
	Name  string `json:"name"`
	Alive bool   `json:"alive"`
	Slots uint32 `json:"slots"`
	Busy  uint32 `json:"busy"`
}

func newJobTop() *cobra.Command {
	every := 2 * time.Second
	var once bool
	cmd := withJobs(&cobra.Command{
		Use: "top", Short: "Watch the hosts and the jobs that have not ended", Args: cobra.NoArgs,
		Example: `  quern job top --data ~/quern
  quern job top --once --json --data ~/quern`,
	}, func(ctx context.Context, c offload.Meta, out io.Writer, _ []string, asJSON bool) error {
		screen := isTerminal(out)
		ticker := time.NewTicker(max(every, 100*time.Millisecond))
		defer ticker.Stop()
		for {
			info, err := topOf(ctx, c)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(out, info)
			} else {
				if screen && !once {
					fmt.Fprint(out, "\x1b[H\x1b[2J")
				}
				err = info.print(out, time.Now())
			}
			if err != nil || once || asJSON || !screen {
				return err
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	cmd.Flags().BoolVar(&once, "once", false, "print once and end, as it does where there is no terminal")
	cmd.Flags().DurationVar(&every, "every", every, "how often to look")
	return cmd
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func topOf(ctx context.Context, c offload.Meta) (*topInfo, error) {
	info := &topInfo{Hosts: []hostInfo{}, Jobs: []jobInfo{}}
	ans, err := c.Ask(ctx, &wire.Query{Cred: caller(), Op: &wire.Query_ListNodes{ListNodes: &wire.ListNodes{}}})
	if err != nil {
		return nil, err
	}
	for _, n := range ans.GetNodes().GetNodes() {
		if n.GetNode().GetKind() == "agent" {
			info.Hosts = append(info.Hosts, hostInfo{n.GetNode().GetName(), n.GetAlive(), n.GetSlots(), n.GetBusy()})
		}
	}
	slices.SortFunc(info.Hosts, func(a, b hostInfo) int { return strings.Compare(a.Name, b.Name) })
	err = offload.EachJob(ctx, c, func(j *wire.Job) error {
		if !offload.Ended(j.GetState()) {
			info.Jobs = append(info.Jobs, jobOf(j, nil))
		}
		return nil
	})
	return info, err
}

func (info *topInfo) print(out io.Writer, now time.Time) error {
	t := newTable(out, "HOST", "ALIVE", "SLOTS", "BUSY")
	for _, h := range info.Hosts {
		t.row(h.Name, yesNo(h.Alive), h.Slots, h.Busy)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out, "ID", "NAME", "UID", "STATE", "PRIORITY", "TASKS", "FAILED", "SINCE", "REASON")
	for _, j := range info.Jobs {
		t.row(j.ID, j.Name, j.User, j.State, j.Priority, fmt.Sprintf("%d of %d", j.Done, j.Tasks), j.Failed, ago(now, j.Submitted.UnixNano()), j.Reason)
	}
	return t.flush()
}
