package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/meta/client"
	"quernfs/offload"
)

func newJob() *cobra.Command {
	job := &cobra.Command{
		Use:   "job",
		Short: "Submit jobs and look at them",
		Long: `Submit jobs and look at them. The mount itself does the same, by any program: see
README in its directory .compute.`,
	}
	job.AddCommand(newJobLs(), newJobShow(), newJobWait(), newJobSubmit(), newJobCancel())
	return job
}

// withJobs makes a command about the jobs of a cluster.
func withJobs(cmd *cobra.Command, do func(ctx context.Context, c *client.Client, out io.Writer, args []string, asJSON bool) error) *cobra.Command {
	var target clusterFlags
	var asJSON bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return target.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			return do(ctx, c, cmd.OutOrStdout(), args, asJSON)
		})
	}
	target.add(cmd.Flags())
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
	Seconds  float64 `json:"seconds"`
}

func jobOf(j *wire.Job, tasks []*wire.Task) jobInfo {
	info := jobInfo{
		ID: j.GetId(), Name: j.GetName(), Kernel: j.GetKernel(), State: j.GetState(), Reason: j.GetReason(),
		Tasks: j.GetTasks(), Done: j.GetTasksDone(), Failed: j.GetTasksFailed(), Submitted: time.Unix(0, j.GetSubmittedNs()).UTC(),
	}
	if j.GetEndedNs() != 0 {
		info.Ended = time.Unix(0, j.GetEndedNs()).UTC()
	}
	for _, t := range tasks {
		ti := taskInfo{
			N: t.GetN(), Phase: t.GetPhase(), State: t.GetState(), Reason: t.GetReason(), Attempt: t.GetAttempt(), Host: t.GetHost(),
			Device: t.GetDevice(), Inputs: len(t.GetInputs()), BytesIn: t.GetBytesIn(), BytesOut: t.GetBytesOut(),
		}
		if t.GetEndedNs() > t.GetStartedNs() && t.GetStartedNs() != 0 {
			ti.Seconds = time.Duration(t.GetEndedNs() - t.GetStartedNs()).Seconds()
		}
		info.TaskList = append(info.TaskList, ti)
	}
	return info
}

func newJobLs() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "ls", Short: "List jobs", Example: `  quern job ls --data ~/quern`, Args: cobra.NoArgs,
	}, func(ctx context.Context, c *client.Client, out io.Writer, _ []string, asJSON bool) error {
		jobs := []jobInfo{}
		if err := offload.EachJob(ctx, c, func(j *wire.Job) error { jobs = append(jobs, jobOf(j, nil)); return nil }); err != nil {
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
}

func newJobShow() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "show JOB", Short: "Show a job and where its tasks ran", Example: `  quern job show top --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c *client.Client, out io.Writer, args []string, asJSON bool) error {
		j, tasks, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		info := jobOf(j, tasks)
		if asJSON {
			return printJSON(out, info)
		}
		fmt.Fprintf(out, "job %d, %s: %s (%s); %d of %d tasks done, %d failed\n\n", info.ID, info.Name, info.State, info.Reason, info.Done, info.Tasks, info.Failed)
		t := newTable(out, "TASK", "PHASE", "STATE", "HOST", "DEVICE", "INPUTS", "READ", "WRITTEN", "SECONDS", "REASON")
		for _, k := range info.TaskList {
			t.row(k.N, k.Phase, k.State, k.Host, k.Device, k.Inputs, size(k.BytesIn), size(k.BytesOut), fmt.Sprintf("%.1f", k.Seconds), k.Reason)
		}
		return t.flush()
	})
}

func newJobWait() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "wait JOB", Short: "Wait until a job has ended; fail if it has not succeeded", Example: `  quern job wait top --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c *client.Client, out io.Writer, args []string, asJSON bool) error {
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

func newJobCancel() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "cancel JOB", Short: "End a job that has not ended", Example: `  quern job cancel top --data ~/quern`,
		Args: exactArgs(1, "a job's name or number"),
	}, func(ctx context.Context, c *client.Client, out io.Writer, args []string, _ bool) error {
		j, _, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		cred := &wire.Cred{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
		return offload.Cancel(ctx, c, cred, j.GetId(), "cancelled by quern job cancel")
	})
}

// newJobSubmit goes through a mount, since that is who checks paths and
// permissions: it does what README in .compute tells people to do.
func newJobSubmit() *cobra.Command {
	var mount string
	cmd := &cobra.Command{
		Use: "submit FILE --mount MNT", Short: "Submit a job file through a mount", Example: `  quern job submit top.yaml --mount ~/q`,
		Args: exactArgs(1, "a job file, NAME.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if mount == "" {
				return usagef("--mount MNT is needed: where the filesystem is mounted")
			}
			return submit(args[0], filepath.Join(mount, ".compute"))
		},
	}
	cmd.Flags().StringVar(&mount, "mount", "", "where the filesystem is mounted")
	return cmd
}

func submit(file, compute string) (err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	name := filepath.Base(file)
	aside := filepath.Join(compute, "queue", "."+name+".new")
	if err := os.WriteFile(aside, raw, 0o644); err != nil {
		return err
	}
	err = os.Rename(aside, filepath.Join(compute, "queue", name))
	if err == nil {
		return nil
	}
	_ = os.Remove(aside)
	stem := name[:len(name)-len(filepath.Ext(name))]
	why, readErr := os.ReadFile(filepath.Join(compute, "errors", stem))
	if readErr != nil {
		return err
	}
	return errors.New(string(why))
}

func newWorker() *cobra.Command {
	return &cobra.Command{
		Use: "worker RUNTIME", Short: "What an agent runs a task in", Hidden: true, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { os.Exit(offload.WorkerMain(args)) },
	}
}
