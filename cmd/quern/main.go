package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments. It returns the exit status:
// 0, 1 for a failure, 2 for a command line that makes no sense.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	root := newRoot()
	root.SetOut(stdout)
	root.SetErr(stderr)
	if isMountHelper(args[0]) {
		root.SetArgs(append([]string{"mount-helper"}, args[1:]...))
	} else {
		root.SetArgs(args[1:])
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "quern:", sentence(err))
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// isMountHelper: mount(8) runs /sbin/mount.fuse.quern for `mount -t fuse.quern`.
func isMountHelper(arg0 string) bool {
	return strings.HasPrefix(filepath.Base(arg0), "mount.fuse.quern")
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "quern",
		Short: "A distributed POSIX filesystem that carries the computation to the data",
		Long: `QuernFS is a POSIX filesystem over many hosts: erasure-coded, verified, mounted
like a disk. Drop a job file into /.compute and it runs where its input lies.

Every flag may also come from the environment (--chunk-servers as
QUERN_CHUNK_SERVERS) or from a YAML file (--config FILE, or DIR/quern.yaml) that
maps flag names to values; the command line wins, then the environment.`,
		Example: `  quern up --data ~/quern --mount ~/q          # everything in one process
  quern status --data ~/quern
  quern mount /mnt/q --meta 10.0.0.1:7400      # a mount of a cluster of many hosts`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("config", "", "YAML file with values for flags")
	root.PersistentFlags().String("log-level", "info", "least level of the log: debug, info, warn, error")
	root.PersistentFlags().String("log-format", "text", "form of the log: text, json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return fillFlags(cmd.Flags(), os.LookupEnv) }
	root.AddCommand(
		newUp(), newDown(), newStart(), newInit(), newCert(),
		newMeta(), newChunkd(), newAgent(), newMount(), newMountHelper(),
		newStatus(), newJob(), newKernel(), newRule(), newWorker(), newDocs(), newVersion(),
	)
	return root
}

// newLog makes the logger that the flags ask for.
func newLog(cmd *cobra.Command) (*slog.Logger, error) {
	name, _ := cmd.Flags().GetString("log-level")
	format, _ := cmd.Flags().GetString("log-format")
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, usagef("--log-level %s: one of debug, info, warn, error is needed", name)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), opts)), nil
	}
	return nil, usagef("--log-format %s: one of text, json is needed", format)
}
