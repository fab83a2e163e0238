package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"quernfs/internal/rawtext"
)

const (
	readyLimit = 90 * time.Second // a start that replays a long log included
	endGrace   = 40 * time.Second // a flush that runs into its deadline included
)

// child is a process that this one started.
type child struct {
	name string
	pid  int
	done chan error // its end
}

// spawn starts `quern ARGS…` as the process NAME of the data directory, in a
// session of its own so that the terminal's signals do not reach it, and
// returns once it is ready. The command line is kept for `quern start`.
func (h *home) spawn(name string, args []string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	raw, err := rawtext.Marshal(args)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.runPath(name+".args"), raw, 0o644); err != nil {
		return nil, err
	}
	logPath := h.runPath(name + ".log")
	out, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), readyEnv+"=3")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &child{name: name, pid: cmd.Process.Pid, done: make(chan error, 1)}
	go func() { c.done <- cmd.Wait() }()
	if err := waitReady(r, readyLimit); err != nil {
		_ = cmd.Process.Kill()
		<-c.done
		if errors.Is(err, errDied) {
			return nil, fmt.Errorf("%s: %w; %s says why", name, err, logPath)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// spawnAll starts several processes at once.
func (h *home) spawnAll(commands map[string][]string) ([]*child, error) {
	var g errgroup.Group
	var mu sync.Mutex
	var children []*child
	for name, args := range commands {
		g.Go(func() error {
			c, err := h.spawn(name, args)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			children = append(children, c)
			return nil
		})
	}
	return children, g.Wait()
}

// ownFlags are those flags of `quern up` that a role has, too, and does not get from
// it: their value is the role's own, or they mean another thing there.
var ownFlags = map[string][]string{
	"meta":   {"data", "debug-addr"},
	"chunkd": {"data", "debug-addr", "label"}, // up's are of the host that runs jobs, these of the place of shards
	"agent":  {"data", "debug-addr"},
	"mount":  {"data", "debug-addr", "agent"},
}

// pathFlags name files: a process may be started again from another directory.
var pathFlags = []string{"fpga-keys", "fpga", "fpga-simulate"}

// passOn is what the command line of `quern up` says, as a command line of a role:
// all flags that were given and that the role has, too. So a new flag that both have
// cannot be forgotten.
func passOn(up *pflag.FlagSet, role *cobra.Command) (args []string) {
	up.VisitAll(func(f *pflag.Flag) {
		if !f.Changed || role.Flags().Lookup(f.Name) == nil || slices.Contains(ownFlags[role.Name()], f.Name) {
			return
		}
		values := []string{f.Value.String()}
		switch f.Value.Type() {
		case "stringArray":
			values = f.Value.(pflag.SliceValue).GetSlice()
		case "stringSlice", "stringToString": // as CSV, in brackets
			values[0] = strings.TrimSuffix(strings.TrimPrefix(values[0], "["), "]")
		}
		for _, v := range values {
			if slices.Contains(pathFlags, f.Name) && v != "" {
				if abs, err := filepath.Abs(v); err == nil {
					v = abs
				}
			}
			args = append(args, "--"+f.Name+"="+v)
		}
	})
	return args
}

// roleArgs are the command lines of the processes of this data directory.
func (h *home) roleArgs(opts upOptions) (metas, chunks, mounts map[string][]string) {
	common := []string{"--data", h.dir, "--log-level", opts.logLevel, "--log-format", opts.logFormat}
	said := func(role *cobra.Command) []string { return slices.Concat(common, passOn(opts.flags, role)) }
	// The agents are among the mounts.
	metas, chunks, mounts = map[string][]string{}, map[string][]string{}, map[string][]string{}
	for _, m := range h.Members {
		metas[m.Name] = append([]string{"meta", "--name", m.Name}, said(newMeta())...)
	}
	for i, n := range h.Nodes {
		chunks[n.Name] = append([]string{"chunkd", "--name", n.Name}, said(newChunkd())...)
		if i >= opts.agents {
			continue
		}
		host := []string{"--as-host", fmt.Sprintf("host-%d", i+1)}
		chunks[n.Name] = append(chunks[n.Name], host...)
		name := fmt.Sprintf("agent-%d", i+1)
		mounts[name] = slices.Concat([]string{"agent", "--name", name}, said(newAgent()), host)
	}
	if opts.mount != "" {
		args := append([]string{"mount", opts.mount, "--name", "mount-1"}, said(newMount())...)
		mounts["mount-1"] = append(args, fmt.Sprintf("--agent=%t", opts.mountFlags.agent))
	}
	return metas, chunks, mounts
}

// upProcesses runs each role as a process of its own, until ctx is done. A
// process that ends before is reported, and left to the operator.
func upProcesses(ctx context.Context, h *home, opts upOptions, out io.Writer, log *slog.Logger) error {
	p, err := newProcess(h, log)
	if err != nil {
		return err
	}
	metas, chunks, mounts := h.roleArgs(opts)
	ended := make(chan string)
	stopped := make(chan struct{})
	var watchers sync.WaitGroup
	defer func() {
		close(stopped)
		for _, err := range h.endAll(context.WithoutCancel(ctx)) {
			log.Warn("shutdown", "err", err)
		}
		watchers.Wait()
	}()
	for i, group := range []map[string][]string{metas, chunks, mounts} {
		if i == 1 {
			if err := p.awaitVoters(ctx); err != nil {
				return err
			}
			// Before anything that waits for the leader: it waits for these.
			p.endStaleSessions(ctx, "", h.metaEndpoints())
		}
		children, err := h.spawnAll(group)
		if err != nil {
			return err
		}
		for _, c := range children {
			watchers.Go(func() {
				err := <-c.done
				how := "ended"
				if err != nil {
					how = err.Error()
				}
				select {
				case ended <- fmt.Sprintf("%s (process %d): %s; `quern start %s --data %s` starts it again", c.name, c.pid, how, c.name, h.dir):
				case <-stopped:
				}
			})
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	opts.announce(out, h)
	for {
		select {
		case text := <-ended:
			fmt.Fprintln(out, text)
		case <-ctx.Done():
			return nil
		}
	}
}

// names lists the processes that have, or had, a file in DIR/run, in the order
// in which they are to be ended: mounts, then chunk servers, then metadata.
func (h *home) names() []string {
	paths, _ := filepath.Glob(h.runPath("*.pid"))
	var names []string
	for _, p := range paths {
		names = append(names, strings.TrimSuffix(filepath.Base(p), ".pid"))
	}
	rank := func(name string) int {
		switch {
		case strings.HasPrefix(name, "meta-"):
			return 2
		case strings.HasPrefix(name, "chunkd-"):
			return 1
		}
		return 0
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// endAll ends all processes of the data directory: the mounts first, then the
// chunk servers, then the metadata servers, those of one kind at once.
func (h *home) endAll(ctx context.Context) []error {
	var failed []error
	names := h.names()
	for len(names) > 0 {
		kind, _, _ := strings.Cut(names[0], "-")
		n := 0
		for n < len(names) && strings.HasPrefix(names[n], kind+"-") {
			n++
		}
		n = max(n, 1)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, name := range names[:n] {
			wg.Go(func() {
				if _, err := endByPidFile(ctx, h.pidPath(name), endGrace); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("%s: %w", name, err))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		names = names[n:]
	}
	return failed
}

func newStart() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start NAME",
		Short: "Start one process of `quern up --processes` again",
		Long: `Start one process of a data directory again, with the command line that it had
before: meta-1, chunkd-3, mount-1. It goes on in the background; its output goes
to DIR/run/NAME.log.`,
		Example: `  kill -9 $(cat ~/quern/run/chunkd-3.pid)
  quern start chunkd-3 --data ~/quern`,
		Args: exactArgs(1, "the name of a process, such as chunkd-3"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, _ := cmd.Flags().GetString("data")
			h, err := openHome(dir)
			if err != nil {
				return err
			}
			name := args[0]
			raw, err := os.ReadFile(h.runPath(name + ".args"))
			if err != nil {
				return usagef("no process %s has been started in %s: names are those of the .args files in %s", name, h.dir, h.path("run"))
			}
			var line []string
			if err := rawtext.Unmarshal(raw, &line); err != nil {
				return fmt.Errorf("%s is damaged: %w", h.runPath(name+".args"), err)
			}
			if pid, err := livePid(h.pidPath(name)); err != nil {
				return err
			} else if pid != 0 {
				return fmt.Errorf("%s is running already (process %d)", name, pid)
			}
			c, err := h.spawn(name, line)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s started (process %d)\n", name, c.pid)
			return nil
		},
	}
	addDataFlag(cmd)
	return cmd
}

func newDown() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "End all processes of a data directory, mounts first",
		Example: `  quern down --data ~/quern`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, _ := cmd.Flags().GetString("data")
			h, err := openHome(dir)
			if err != nil {
				return err
			}
			// `quern up` in the foreground ends what it started by itself.
			var failed []error
			if pid, err := endByPidFile(cmd.Context(), h.path("lock"), 3*endGrace); err != nil {
				failed = append(failed, err)
			} else if pid != 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "ended quern up (process %d)\n", pid)
			}
			failed = append(failed, h.endAll(cmd.Context())...)
			return errors.Join(failed...)
		},
	}
	addDataFlag(cmd)
	return cmd
}

func addDataFlag(cmd *cobra.Command) {
	cmd.Flags().String("data", "", "data directory of this host")
}

// exactArgs is cobra.ExactArgs with a sentence that says what is missing.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s needs %s (see `%s --help`)", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}
