package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/meta/client"
	"quernfs/offload"
	jobclient "quernfs/offload/client"
	"quernfs/offload/jobfile"
)

func newJob() *cobra.Command {
	job := &cobra.Command{
		Use:   "job",
		Short: "Submit jobs and look at them",
		Long: `Submit jobs and look at them. The mount itself does the same, by any program: see
README in its directory .compute.`,
	}
	job.AddCommand(newJobSubmit(), newJobLs(), newJobShow(), newJobWait(), newJobLogs(), newJobTop(), newJobUsage(), newJobExplain(), newJobSimulate())
	job.AddCommand(jobVerbs()...)
	return job
}

// withJobs makes a command about the jobs of a cluster.
func withJobs(cmd *cobra.Command, do func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error) *cobra.Command {
	var target clusterFlags
	var mount string
	var asJSON bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if mount != "" || target.data == "" && len(target.meta) == 0 {
			dir, err := mountFor(mount)
			if err != nil {
				return err
			}
			api, err := os.OpenFile(filepath.Join(dir, ".compute", "api"), os.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("the mount at %s cannot be asked: %w", dir, err)
			}
			defer api.Close()
			return do(withMount(cmd.Context(), dir), offload.NewMountMeta(api), cmd.OutOrStdout(), args, asJSON)
		}
		return target.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			return do(ctx, c, cmd.OutOrStdout(), args, asJSON)
		})
	}
	target.add(cmd.Flags())
	cmd.Flags().StringVar(&mount, "mount", "", "where the filesystem is mounted: then no certificate is needed (default: the mount that the working directory is in, or the only one)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// jobInfo is what --json prints. Fields are only ever added.
type jobInfo struct {
	ID        uint64     `json:"id"`
	Name      string     `json:"name"`
	Kernel    string     `json:"kernel"`
	State     string     `json:"state"`
	Reason    string     `json:"reason"`
	Tasks     uint32     `json:"tasks"`
	Done      uint32     `json:"tasks_done"`
	Failed    uint32     `json:"tasks_failed"`
	User      uint32     `json:"uid"`
	Priority  int32      `json:"priority"`
	Paused    bool       `json:"paused"`
	Rule      string     `json:"rule,omitempty"`
	Submitted time.Time  `json:"submitted"`
	Ended     time.Time  `json:"ended,omitzero"`
	TaskList  []taskInfo `json:"task_list,omitempty"`
}

type taskInfo struct {
	N        uint32  `json:"n"`
	Phase    string  `json:"phase"`
	State    string  `json:"state"`
	Reason   string  `json:"reason"`
	Attempt  uint32  `json:"attempt"`
	Host     string  `json:"host"`
	Device   string  `json:"device"`
	Inputs   int     `json:"inputs"`
	BytesIn  uint64  `json:"bytes_in"`
	BytesOut uint64  `json:"bytes_out"`
	Local    uint64  `json:"bytes_local"`
	Remote   uint64  `json:"bytes_remote"`
	Seconds  float64 `json:"seconds"`
}

func jobOf(j *wire.Job, tasks []*wire.Task) jobInfo {
	info := jobInfo{
		ID: j.GetId(), Name: j.GetName(), Kernel: j.GetKernel(), State: j.GetState(), Reason: j.GetReason(),
		Tasks: j.GetTasks(), Done: j.GetTasksDone(), Failed: j.GetTasksFailed(), Submitted: time.Unix(0, j.GetSubmittedNs()).UTC(),
		User: j.GetCred().GetUid(), Priority: j.GetPriority(), Paused: j.GetPaused(), Rule: j.GetRule(),
	}
	if j.GetEndedNs() != 0 {
		info.Ended = time.Unix(0, j.GetEndedNs()).UTC()
	}
	for _, t := range tasks {
		ti := taskInfo{
			N: t.GetN(), Phase: t.GetPhase(), State: t.GetState(), Reason: t.GetReason(), Attempt: t.GetAttempt(), Host: t.GetHost(),
			Device: t.GetDevice(), Inputs: len(t.GetInputs()), BytesIn: t.GetBytesIn(), BytesOut: t.GetBytesOut(),
			Local: t.GetBytesLocal(), Remote: t.GetBytesRemote(),
		}
		if t.GetEndedNs() > t.GetStartedNs() && t.GetStartedNs() != 0 {
			ti.Seconds = time.Duration(t.GetEndedNs() - t.GetStartedNs()).Seconds()
		}
		info.TaskList = append(info.TaskList, ti)
	}
	return info
}

func newJobLs() *cobra.Command {
	var states []string
	cmd := withJobs(&cobra.Command{
		Use: "ls", Short: "List jobs", Args: cobra.NoArgs, Example: `  quern job ls --data ~/quern
  quern job ls --state failed,expired --json --data ~/quern`,
	}, func(ctx context.Context, c offload.Meta, out io.Writer, _ []string, asJSON bool) error {
		for _, s := range states {
			if !slices.Contains(offload.States, s) {
				return usagef("--state %s: there is no such state%s; there are %s", s, jobfile.DidYouMean(s, offload.States), strings.Join(offload.States, ", "))
			}
		}
		jobs := []jobInfo{}
		err := offload.EachJob(ctx, c, func(j *wire.Job) error {
			if len(states) == 0 || slices.Contains(states, j.State) {
				jobs = append(jobs, jobOf(j, nil))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, jobs)
		}
		t := newTable(out, "ID", "NAME", "STATE", "TASKS", "KERNEL", "SUBMITTED", "REASON")
		for _, j := range jobs {
			t.row(j.ID, j.Name, j.State, fmt.Sprintf("%d of %d", j.Done, j.Tasks), j.Kernel, ago(time.Now(), j.Submitted.UnixNano())+" ago", j.Reason)
		}
		return t.flush()
	})
	cmd.Flags().StringSliceVar(&states, "state", nil, "only jobs in these states: "+strings.Join(offload.States, ", "))
	return cmd
}

func newJobShow() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "show JOB", Short: "Show a job and where its tasks ran", Example: `  quern job show top --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
		j, tasks, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		info := jobOf(j, tasks)
		if asJSON {
			return printJSON(out, info)
		}
		fmt.Fprintf(out, "job %d, %s: %s (%s); %d of %d tasks done, %d failed\n\n", info.ID, info.Name, info.State, info.Reason, info.Done, info.Tasks, info.Failed)
		t := newTable(out, "TASK", "PHASE", "STATE", "HOST", "DEVICE", "INPUTS", "READ", "REMOTE", "WRITTEN", "SECONDS", "REASON")
		for _, k := range info.TaskList {
			t.row(k.N, k.Phase, k.State, k.Host, k.Device, k.Inputs, size(k.BytesIn), size(k.Remote), size(k.BytesOut), fmt.Sprintf("%.1f", k.Seconds), k.Reason)
		}
		return t.flush()
	})
}

func newJobWait() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "wait JOB", Short: "Wait until a job has ended; fail if it has not succeeded", Example: `  quern job wait top --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
		j, _, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		if j, err = offload.WaitJob(ctx, c, j.GetId()); err != nil {
			return err
		}
		if asJSON {
			if err := printJSON(out, jobOf(j, nil)); err != nil {
				return err
			}
		}
		if j.GetState() != offload.StateSucceeded {
			return fmt.Errorf("job %d is %s: %s", j.GetId(), j.GetState(), j.GetReason())
		}
		return nil
	})
}

// newJobSubmit goes through a mount, since that is who checks paths and
// permissions: it does what README in .compute tells people to do.
func newJobSubmit() *cobra.Command {
	var mount string
	var wait, asJSON bool
	cmd := &cobra.Command{
		Use: "submit FILE", Short: "Submit a job file through a mount",
		Example: `  quern job submit top.yaml --mount ~/q
  quern job submit top.yaml --mount ~/q --wait && cat ~/q/.compute/by-name/top/out/output`,
		Args: exactArgs(1, "a job file, NAME.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, ok := offload.JobName(filepath.Base(args[0]))
			if !ok {
				return usagef("%s: a job file is called NAME.yaml", args[0])
			}
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if mount, err = mountFor(mount); err != nil {
				return err
			}
			job, err := jobclient.At(mount).Submit(name, raw)
			if err != nil {
				return err
			}
			var state, reason string
			if wait {
				_, err = job.Wait(cmd.Context())
			}
			if err == nil {
				state, reason, err = job.State()
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), map[string]string{"name": name, "state": state, "reason": reason})
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (%s)\n", name, state, reason)
			}
			if err == nil && wait && state != offload.StateSucceeded {
				err = fmt.Errorf("the job %s is %s: %s", name, state, reason)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mount, "mount", "", "where the filesystem is mounted (default: the mount that the working directory is in, or the only one)")
	flags.BoolVar(&wait, "wait", false, "wait until the job has ended; fail if it has not succeeded")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWorker() *cobra.Command {
	return &cobra.Command{
		Use: "worker RUNTIME", Short: "What an agent runs a task in", Hidden: true, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { os.Exit(offload.WorkerMain(args)) },
	}
}
