package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// mountFlags are the flags of everything that mounts.
type mountFlags struct {
	options []string // -o
	dirty   string
	cache   string
	agent   bool
	slots   int
	output  string
	labels  map[string]string
	debug   string
	exec    execFlags
	fpga    fpgaFlags
}

func (m *mountFlags) add(flags *pflag.FlagSet, agent bool) {
	flags.StringSliceVarP(&m.options, "options", "o", nil, "mount options: ro, noatime, nodiratime, suid, dev, noexec, allow_other, nonempty, compute=listed")
	flags.BoolVar(&m.agent, "agent", agent, "run tasks of jobs in the mount's process")
	m.addBuffers(flags)
	debugFlag(flags, &m.debug)
}

// addBuffers adds the flags that an agent without a mount has, too.
func (m *mountFlags) addBuffers(flags *pflag.FlagSet) {
	flags.StringVar(&m.dirty, "write-buffer", "256MiB", "most memory for data not yet stored")
	flags.StringVar(&m.cache, "read-cache", "256MiB", "memory for data that was read")
	flags.IntVar(&m.slots, "slots", 0, "tasks that run at once (0: one for each CPU)")
	flags.StringVar(&m.output, "output-limit", "16GiB", "most that one task may write")
	flags.StringToStringVar(&m.labels, "label", nil, "of the host, KEY=VALUE, for jobs that say where they may run: zone, rack, gpu, …")
	m.exec.add(flags)
	m.fpga.add(flags)
}

// outputLimit is how many bytes one task may write.
func (m *mountFlags) outputLimit() (int64, error) {
	n, err := parseSize(m.output)
	if err == nil && n <= 0 {
		err = fmt.Errorf("%q is no size above 0", m.output)
	}
	if err != nil {
		return 0, usagef("--output-limit: %w", err)
	}
	return n, nil
}

func newMount() *cobra.Command {
	var flags mountFlags
	var target clusterFlags
	var name, source string
	cmd := &cobra.Command{
		Use:   "mount MNT",
		Short: "Mount a cluster",
		Long: `Mount a cluster at the directory MNT, until SIGINT or SIGTERM. The cluster is that
of a data directory (--data, with the certificate of a client in it), or the one
whose metadata servers --meta names.`,
		Example: `  quern mount /mnt/q --data ~/quern
  quern mount /mnt/q --meta 10.0.0.1:7400,10.0.0.2:7400 --pki /etc/quern/client -o ro,noatime`,
		Args: exactArgs(1, "a directory to mount at"),
		RunE: func(cmd *cobra.Command, args []string) error {
			report := openStartReport()
			err := runMount(cmd, args[0], name, source, &target, &flags, report)
			report.failed(err)
			return err
		},
	}
	target.add(cmd.Flags())
	flags.add(cmd.Flags(), false)
	cmd.Flags().StringVar(&name, "name", "", "name of this mount in DIR/run (default: made from MNT)")
	cmd.Flags().StringVar(&source, "source", "", "what /proc/mounts shows as mounted (default: the value of --data or --meta)")
	return cmd
}

func runMount(cmd *cobra.Command, mnt, name, source string, target *clusterFlags, flags *mountFlags, report *startReport) (err error) {
	ctx := cmd.Context()
	log, err := newLog(cmd)
	if err != nil {
		return err
	}
	mnt, err = prepareMountPoint(mnt, func(s string) { log.Warn(s) })
	if err != nil {
		return err
	}
	h, pki, err := target.resolve()
	if err != nil {
		return err
	}
	p, err := newProcess(h, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(context.WithoutCancel(ctx))) }()
	m := mountRole{mnt: mnt, source: cmp.Or(source, h.dir, strings.Join(target.meta, ",")), flags: *flags, servers: target.servers(h)}
	if m.id, err = transport.LoadIdentity(pki); err != nil {
		return err
	}
	if flags.agent {
		if m.agent, err = h.identity("agent", "agent"); err != nil {
			return err
		}
	}
	if h.dir != "" {
		if name == "" {
			name = "mount" + strings.ReplaceAll(mnt, "/", "-")
		}
		if err := os.MkdirAll(h.path("run"), 0o711); err != nil {
			return err
		}
		lock, err := takePidFile(h.pidPath(name))
		if errors.Is(err, errHeld) {
			return fmt.Errorf("the mount %s of %s is running already: end it first, or give this one another --name", name, h.dir)
		}
		if err != nil {
			return err
		}
		p.onStop("pid file", func(context.Context) error { lock.release(); return nil })
		m.name = name
		m.scratch = h.path("compute")
	} else if m.scratch, err = cacheDir(); err != nil {
		return err
	}
	stopDebug, err := serveDebug(flags.debug, log)
	if err != nil {
		return err
	}
	p.onStop("debug server", stopDebug)
	ended, err := p.startMount(ctx, m)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is mounted\n", mnt)
	report.ready()
	select {
	case <-ctx.Done():
	case <-ended:
		log.Info("unmounted by someone else", "mount", mnt)
	}
	return nil
}

// cacheDir is for what an agent keeps that can be made again, where there is no
// data directory. What mount(8) and systemd start has no HOME.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil && os.Geteuid() == 0 {
		dir, err = "/var/cache", nil
	}
	return filepath.Join(dir, "quern"), err
}

// clusterFlags say which cluster a command is about.
type clusterFlags struct {
	data string
	meta []string
	pki  string
}

func (c *clusterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&c.data, "data", "", "data directory of the cluster on this host")
	flags.StringSliceVar(&c.meta, "meta", nil, "metadata servers, HOST:PORT,…")
	flags.StringVar(&c.pki, "pki", "", "directory with the certificate of a client (default: that of --data, ~/.config/quern/client, /etc/quern/client)")
}

// resolve finds the data directory, if one is named, and the certificate. A
// home without a directory is a cluster that is elsewhere.
func (c *clusterFlags) resolve() (*home, string, error) {
	if c.data == "" && len(c.meta) == 0 {
		return nil, "", usagef("--data DIR or --meta HOST:PORT,… is needed, to say which cluster")
	}
	h := &home{}
	if c.data != "" {
		var err error
		if h, err = openHome(c.data); err != nil {
			return nil, "", err
		}
	}
	tried := []string{c.pki}
	if c.pki == "" {
		tried = nil
		if h.dir != "" {
			tried = append(tried, transport.IdentityDir(h.dir, "client", "client"))
		}
		if config, err := os.UserConfigDir(); err == nil {
			tried = append(tried, filepath.Join(config, "quern", "client"))
		}
		tried = append(tried, "/etc/quern/client")
	}
	for _, dir := range tried {
		if _, err := os.Stat(dir); err == nil {
			return h, dir, nil
		}
	}
	return nil, "", fmt.Errorf("no certificate of a client in %s: make one with `quern cert client NAME` where the cluster was made, and name its directory with --pki", strings.Join(tried, ", "))
}

func (c *clusterFlags) servers(h *home) []*wire.Endpoint {
	if len(c.meta) == 0 {
		return h.metaEndpoints()
	}
	var list []*wire.Endpoint
	for _, addr := range c.meta {
		list = append(list, &wire.Endpoint{Addr: addr})
	}
	return list
}
