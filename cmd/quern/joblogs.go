package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/meta/client"
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
	task := -1
	cmd := withJobs(&cobra.Command{
		Use: "logs JOB", Short: "Show what the tasks of a job wrote, the last 8 KiB of each",
		Example: `  quern job logs top --data ~/quern
  quern job logs top --task 3 --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c *client.Client, out io.Writer, args []string, asJSON bool) error {
		_, tasks, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		logs := []taskLog{}
		for _, t := range tasks {
			if task < 0 || t.GetN() == uint32(task) {
				logs = append(logs, taskLog{t.GetN(), t.GetState(), t.GetHost(), t.GetExit(), string(t.GetStdoutTail()), string(t.GetStderrTail())})
			}
		}
		if task >= 0 && len(logs) == 0 {
			return fmt.Errorf("job %s has no task %d: it has %s", args[0], task, count(len(tasks), "task"))
		}
		if asJSON {
			return printJSON(out, logs)
		}
		for _, l := range logs {
			fmt.Fprintf(out, "==> task %d on %s: %s, exit status %d <==\n", l.N, l.Host, l.State, l.Exit)
			for _, text := range []string{l.Stderr, l.Stdout} {
				if text != "" && !strings.HasSuffix(text, "\n") {
					text += "\n"
				}
				if _, err := io.WriteString(out, text); err != nil {
					return err
				}
			}
		}
		return nil
	})
	cmd.Flags().IntVar(&task, "task", -1, "only this task")
	return cmd
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
	}, func(ctx context.Context, c *client.Client, out io.Writer, _ []string, asJSON bool) error {
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

func topOf(ctx context.Context, c *client.Client) (*topInfo, error) {
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
