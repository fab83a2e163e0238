package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quernfs/internal/block"
	"quernfs/internal/transport"
)

// upOptions are the flags of `quern up`.
type upOptions struct {
	data         string
	mount        string
	policy       string
	metaServers  int
	chunkServers int
	processes    bool
	agents       int
	limits       limitFlags
	anew         bool // the metadata is gone: begin a new filesystem
	mountFlags   mountFlags

	// Which of the flags were given; the others follow what DIR has.
	policySet, metaSet, chunksSet bool

	logLevel, logFormat string

	flags *pflag.FlagSet // all of them, for processes of their own
}

func newUp() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole cluster on this host and mount it",
		Long: `Run metadata servers, chunk servers, an agent and a mount on this host, in the
foreground until SIGINT or SIGTERM, which flush and unmount. DIR keeps all
state: it is made at the first start, and the next start finds everything again.

With --processes each of them is a process of its own, so that one can be killed:
DIR/run has their process ids and logs. One that dies is reported, not started
again (see "quern start"). They outlive this command if it is killed by SIGKILL;
"quern down" ends them.`,
		Example: `  mkdir -p ~/q && quern up --data ~/quern --mount ~/q
  quern up --data /srv/quern --mount /mnt/q --processes --chunk-servers 6 --policy 4+2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := cmd.Flags()
			o.flags = flags
			o.policySet, o.metaSet, o.chunksSet = flags.Changed("policy"), flags.Changed("meta-servers"), flags.Changed("chunk-servers")
			if o.agents != 0 && (!o.processes || o.agents < 0) {
				return usagef("--agents %d: with --processes only, from 1 to as many as there are chunk servers", o.agents)
			}
			if o.agents > 0 && !flags.Changed("agent") {
				o.mountFlags.agent = false
			}
			o.logLevel, _ = flags.GetString("log-level")
			o.logFormat, _ = flags.GetString("log-format")
			log, err := newLog(cmd)
			if err != nil {
				return err
			}
			return up(cmd.Context(), o, cmd.OutOrStdout(), log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.data, "data", "", "directory for all state; made when it is not there")
	flags.StringVar(&o.mount, "mount", "", "empty directory to mount at (none: only serve)")
	flags.StringVar(&o.policy, "policy", "4+2", "erasure coding of the root directory, data+parity shards; 1+2 is three copies")
	flags.IntVar(&o.metaServers, "meta-servers", 1, "metadata servers: 1, 3 or 5 (with --processes the default is 3)")
	flags.IntVar(&o.chunkServers, "chunk-servers", 6, "chunk servers")
	flags.BoolVar(&o.processes, "processes", false, "run each role as a process of its own")
	flags.IntVar(&o.agents, "agents", 0, "with --processes: so many agents, each beside a chunk server as if the two were a host of their own; the mount then runs no tasks")
	flags.BoolVar(&o.anew, "new-filesystem", false, "where the metadata of the filesystem in DIR is gone, begin a new, empty one; what the chunk servers hold is kept in DIR/lost-DATE")
	o.limits.add(flags)
	o.mountFlags.add(flags, true)
	return cmd
}

// up is `quern up`: the data directory is locked, made or opened, and then
// everything runs until ctx is done.
func up(ctx context.Context, o upOptions, out io.Writer, log *slog.Logger) error {
	if o.data == "" {
		return usagef("--data DIR is needed: a directory for all state (it is made when it is not there)")
	}
	dir, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	if o.mount != "" {
		if o.mount, err = prepareMountPoint(o.mount, func(s string) { log.Warn(s) }); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	lock, err := takePidFile(filepath.Join(dir, "lock"))
	if errors.Is(err, errHeld) {
		pid, _ := livePid(filepath.Join(dir, "lock"))
		return fmt.Errorf("another quern up (process %d) uses %s: end it with `quern down --data %s`, or name another --data", pid, dir, dir)
	}
	if err != nil {
		return err
	}
	defer lock.release()
	h, err := o.open(dir, log)
	if err != nil {
		return err
	}
	for _, name := range h.names() {
		if pid, _ := livePid(h.pidPath(name)); pid != 0 {
			return fmt.Errorf("%s (process %d) of an earlier quern up still runs on %s: end it with `quern down --data %s`", name, pid, dir, dir)
		}
	}
	stopDebug, err := serveDebug(o.mountFlags.debug, log)
	if err != nil {
		return err
	}
	defer stopDebug(context.WithoutCancel(ctx))
	if o.agents > len(h.Nodes) {
		return usagef("--agents %d: there are %s, and each agent stands beside one", o.agents, count(len(h.Nodes), "chunk server"))
	}
	if o.processes {
		return upProcesses(ctx, h, o, out, log)
	}
	return upEmbedded(ctx, h, o, out, log)
}

// open makes or opens the data directory, and checks that what it has and what
// the flags ask for agree.
func (o upOptions) open(dir string, log *slog.Logger) (*home, error) {
	if !isHome(dir) {
		if o.processes && !o.metaSet {
			o.metaServers = 3
		}
		if o.metaServers != 1 && o.metaServers != 3 && o.metaServers != 5 {
			return nil, usagef("--meta-servers %d: 1, 3 or 5 are needed, so that a majority can be had", o.metaServers)
		}
		if err := checkPolicy(o.policy, o.chunkServers); err != nil {
			return nil, err
		}
		c, err := localCluster(o.policy, o.metaServers, o.chunkServers)
		if err != nil {
			return nil, err
		}
		return initHome(dir, c)
	}
	h, err := openHome(dir)
	if err != nil {
		return nil, err
	}
	gone, err := h.metadataGone()
	if err != nil {
		return nil, err
	}
	switch {
	case gone && !o.anew:
		return nil, fmt.Errorf("the metadata of the filesystem in %s is gone (there is no %s), and without it what the chunk servers hold cannot be read%s", dir, memberNames(h), "; restore it from a copy"+h.lostHint())
	case gone:
		aside, err := h.setAside()
		if err != nil {
			return nil, err
		}
		log.Warn("a new filesystem is begun; what is left of the lost one is kept", "kept in", aside)
	case o.anew:
		return nil, usagef("--new-filesystem: the metadata of the filesystem in %s is not gone; name another --data for a new one", dir)
	}
	switch {
	case o.policySet && o.policy != h.Policy:
		return nil, usagef("%s was made with policy %s, which --policy does not change: mount it, and set the policy of a directory with `setfattr -n user.quern.policy -v %s DIRECTORY`", dir, h.Policy, o.policy)
	case o.metaSet && o.metaServers != len(h.Members):
		return nil, usagef("%s was made with %d metadata servers: leave --meta-servers away", dir, len(h.Members))
	case o.chunksSet && o.chunkServers < len(h.Nodes):
		return nil, usagef("%s has data on %d chunk servers: give --chunk-servers %d or more, or leave it away", dir, len(h.Nodes), len(h.Nodes))
	case o.chunksSet:
		if err := h.addNodes(o.chunkServers); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// checkPolicy: there are enough chunk servers for each shard to be on another.
func checkPolicy(text string, servers int) error {
	policy, err := block.ParsePolicy(text)
	if err != nil {
		return usagef("--policy %s: %w", text, err)
	}
	if servers < policy.Shards() {
		return usagef("policy %s needs %d chunk servers, and there are %d: give --chunk-servers %d, or a smaller --policy such as 1+%d",
			text, policy.Shards(), servers, policy.Shards(), max(0, servers-1))
	}
	return nil
}

// lostHint ends the sentence that says that the metadata is gone.
func (h *home) lostHint() string {
	if len(h.Nodes) > 0 {
		return ", or begin a new, empty filesystem with `quern up --new-filesystem`"
	}
	return ", or make a new cluster with `quern init` in another directory"
}

func (o upOptions) announce(out io.Writer, h *home) {
	where := "serving"
	if o.mount != "" {
		where = o.mount + " is mounted"
	}
	fmt.Fprintf(out, "%s: policy %s, %s, %s, data in %s\n", where, h.Policy,
		count(len(h.Members), "metadata server"), count(len(h.Nodes), "chunk server"), h.dir)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// upEmbedded runs everything in this process. What has been started is ended
// in the opposite order: the mount flushes while the servers still serve.
func upEmbedded(ctx context.Context, h *home, o upOptions, out io.Writer, log *slog.Logger) (err error) {
	p, err := newProcess(h, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(context.WithoutCancel(ctx))) }()

	if p.limits, err = o.limits.limits(); err != nil {
		return err
	}
	for _, m := range h.Members {
		if _, err := p.startMeta(ctx, m, m.Addr); err != nil {
			return err
		}
	}
	if err := p.awaitVoters(ctx); err != nil {
		return err
	}
	// Before anything that waits for the leader: it waits for these.
	p.endStaleSessions(ctx, "", h.metaEndpoints())
	for _, n := range h.Nodes {
		if err := p.startChunkd(ctx, chunkOptions{name: n.Name, listen: n.Addr, labels: n.Labels}); err != nil {
			return err
		}
	}
	var ended <-chan struct{}
	if o.mount != "" {
		id, err := transport.LoadIdentity(transport.IdentityDir(h.dir, "client", "client"))
		if err != nil {
			return err
		}
		// Without it another mount of this directory would take this one for dead,
		// and end its session.
		lock, err := takePidFile(h.pidPath("mount-1"))
		if err != nil {
			return fmt.Errorf("the mount of %s: %w", h.dir, err)
		}
		p.onStop("pid file", func(context.Context) error { lock.release(); return nil })
		m := mountRole{
			mnt: o.mount, source: h.dir, name: "mount-1", flags: o.mountFlags, id: id, servers: h.metaEndpoints(),
			scratch: h.path("compute"),
		}
		if o.mountFlags.agent {
			if m.agent, err = h.identity("agent", "agent"); err != nil {
				return err
			}
		}
		ended, err = p.startMount(ctx, m)
		if err != nil {
			return err
		}
	}
	o.announce(out, h)
	select {
	case <-ctx.Done():
	case <-ended:
		log.Info("unmounted by someone else", "mount", o.mount)
	}
	return nil
}
