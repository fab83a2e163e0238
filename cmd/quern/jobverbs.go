package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"quernfs/internal/wire"
	"quernfs/offload"
)

// caller is who calls this command.
func caller() *wire.Cred { return &wire.Cred{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())} }

// jobVerbs are the commands that tell a job something.
func jobVerbs() []*cobra.Command {
	return []*cobra.Command{
		jobVerb("cancel JOB", "End a job that has not ended", "  quern job cancel top --data ~/quern",
			func(ctx context.Context, c offload.Meta, id uint64) error {
				return offload.Cancel(ctx, c, caller(), id, "cancelled by quern job cancel")
			}),
		jobVerb("retry JOB", "Run those tasks of a job again that have not succeeded", "  quern job retry top --data ~/quern",
			func(ctx context.Context, c offload.Meta, id uint64) error {
				return offload.Retry(ctx, c, caller(), id, "retried by quern job retry")
			}),
		jobVerb("pause JOB", "Start no further task of a job", "  quern job pause top --data ~/quern",
			func(ctx context.Context, c offload.Meta, id uint64) error {
				return offload.Pause(ctx, c, caller(), id, "paused by quern job pause")
			}),
		jobVerb("resume JOB", "Take a pause back", "  quern job resume top --data ~/quern",
			func(ctx context.Context, c offload.Meta, id uint64) error {
				return offload.Resume(ctx, c, caller(), id, "resumed by quern job resume")
			}),
		jobVerb("rm JOB", "Forget a job that has ended, with its output directory", "  quern job rm top --data ~/quern",
			func(ctx context.Context, c offload.Meta, id uint64) error {
				for done := false; !done; {
					var err error
					if done, err = offload.RemoveJob(ctx, c, caller(), id, 1); err != nil {
						return err
					}
				}
				return nil
			}),
		newJobPriority(),
	}
}

func jobVerb(use, short, example string, do func(context.Context, offload.Meta, uint64) error) *cobra.Command {
	return withJobs(&cobra.Command{Use: use, Short: short, Example: example, Args: exactArgs(1, "a job's name or number")},
		func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
			j, _, err := offload.GetJob(ctx, c, args[0])
			if err != nil {
				return err
			}
			if err := do(ctx, c, j.GetId()); err != nil || !asJSON {
				return err
			}
			return printJSON(out, map[string]uint64{"id": j.GetId()})
		})
}

func newJobPriority() *cobra.Command {
	return withJobs(&cobra.Command{
		Use: "priority JOB N", Short: "Change how urgent a job is; higher ones come first",
		Example: "  quern job priority top 10 --data ~/quern\n  quern job priority top --data ~/quern -- -10",
		Args:    exactArgs(2, "a job's name or number, and a number from -1000 to 1000"),
	}, func(ctx context.Context, c offload.Meta, out io.Writer, args []string, asJSON bool) error {
		n, err := strconv.Atoi(args[1])
		if err != nil || n < -1000 || n > 1000 {
			return usagef("priority %s: a number from -1000 to 1000 is needed", args[1])
		}
		j, _, err := offload.GetJob(ctx, c, args[0])
		if err != nil {
			return err
		}
		if err := offload.SetPriority(ctx, c, caller(), j.GetId(), n, fmt.Sprintf("priority %d, set by quern job priority", n)); err != nil || !asJSON {
			return err
		}
		return printJSON(out, map[string]any{"id": j.GetId(), "priority": n})
	})
}
