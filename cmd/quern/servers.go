package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"quernfs/internal/transport"
)

func newInit() *cobra.Command {
	var dir, policy string
	var metas []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a cluster: its certificate authority, key and configuration",
		Long: `Make the data directory of a new cluster of many hosts. --meta lists its metadata
servers (1, 3 or 5), which are called meta-1, meta-2, … in that order. The other
hosts get what they need as bundles of "quern cert".`,
		Example: `  quern init --data /srv/quern --policy 4+2 --meta 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400
  quern cert chunkd chunkd-7 --data /srv/quern --host 10.0.0.7 --out chunkd-7.tar`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usagef("--data DIR is needed: a new directory for the cluster's keys and state")
			}
			if isHome(dir) {
				return fmt.Errorf("%s is the data directory of a cluster already: name another one", dir)
			}
			if n := len(metas); n != 1 && n != 3 && n != 5 {
				return usagef("--meta names %d metadata servers: 1, 3 or 5 are needed, so that a majority can be had", n)
			}
			c := cluster{Policy: policy}
			for i, addr := range metas {
				if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || port == "0" {
					return usagef("--meta %s: HOST:PORT is needed, as the other hosts reach it", addr)
				}
				c.Members = append(c.Members, member{Name: fmt.Sprintf("meta-%d", i+1), Addr: addr})
			}
			h, err := initHome(dir, c)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster made in %s: policy %s, %s\n", h.dir, h.Policy, count(len(h.Members), "metadata server"))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "data", "", "directory for the cluster's keys and this host's state")
	flags.StringVar(&policy, "policy", "4+2", "erasure coding of the root directory, data+parity shards")
	flags.StringSliceVar(&metas, "meta", []string{"127.0.0.1:7400"}, "metadata servers, HOST:PORT,…")
	return cmd
}

func newCert() *cobra.Command {
	var dir, out string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "cert ROLE NAME",
		Short: "Make the bundle that lets a process of another host into the cluster",
		Long: `Issue a certificate for a process of the role meta, chunkd, client or agent, and
write a tar file with all that its host needs: certificate and key, cluster.json,
and for meta and chunkd the cluster key. Unpack it in that host's data
directory. Keep it secret: who has it is in the cluster.`,
		Example: `  quern cert chunkd chunkd-7 --data /srv/quern --host 10.0.0.7 --out chunkd-7.tar
  ssh 10.0.0.7 'mkdir -p /srv/quern && tar -C /srv/quern -x' < chunkd-7.tar
  quern cert client client --data /srv/quern --out mount.tar`,
		Args: exactArgs(2, "a role (meta, chunkd, client, agent) and a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			role, name := args[0], args[1]
			h, err := openHome(dir)
			if err != nil {
				return err
			}
			if !slices.Contains([]string{"meta", "chunkd", "client", "agent"}, role) {
				return usagef("role %s: one of meta, chunkd, client, agent is needed", role)
			}
			ca, err := transport.LoadAuthority(transport.AuthorityDir(h.dir))
			if err != nil {
				return err
			}
			if err := h.issue(ca, role, name, hosts...); err != nil {
				return err
			}
			if out == "" {
				fmt.Fprintln(cmd.OutOrStdout(), transport.IdentityDir(h.dir, role, name))
				return nil
			}
			return h.bundle(out, role, name)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "data", "", "data directory in which the cluster was made")
	flags.StringSliceVar(&hosts, "host", nil, "names or addresses of the process's host")
	flags.StringVar(&out, "out", "", "tar file to write; without it the certificate stays in DIR/pki")
	return cmd
}

// bundle writes the tar file for one process of another host.
func (h *home) bundle(path, role, name string) (err error) {
	files := []string{"cluster.json"}
	if role == "meta" || role == "chunkd" {
		files = append(files, "cluster.key")
	}
	identity, err := filepath.Rel(h.dir, transport.IdentityDir(h.dir, role, name))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(h.path(identity))
	if err != nil {
		return err
	}
	for _, e := range entries {
		files = append(files, filepath.Join(identity, e.Name()))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	defer func() { err = errors.Join(err, w.Close()) }()
	for _, dir := range []string{"pki", identity} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o700}); err != nil {
			return err
		}
	}
	for _, name := range files {
		raw, err := os.ReadFile(h.path(name))
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(raw))}); err != nil {
			return err
		}
		if _, err := w.Write(raw); err != nil {
			return err
		}
	}
	return nil
}

func newMeta() *cobra.Command {
	var name, listen, debugAddr string
	var limits limitFlags
	cmd := &cobra.Command{
		Use:   "meta",
		Short: "Run a metadata server",
		Long: `Run one of the metadata servers that cluster.json in the data directory names,
until SIGINT or SIGTERM.`,
		Example: `  quern meta --data /srv/quern --name meta-2`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServer(cmd, name, debugAddr, func(ctx context.Context, p *process) error {
				m, ok := p.home.member(name)
				if !ok {
					return usagef("--name %s: cluster.json names %s", name, memberNames(p.home))
				}
				if listen == "" {
					listen = m.Addr
				}
				var err error
				if p.limits, err = limits.limits(); err != nil {
					return err
				}
				_, err = p.startMeta(ctx, m, listen)
				return err
			})
		},
	}
	addDataFlag(cmd)
	cmd.Flags().StringVar(&name, "name", "meta-1", "which of the metadata servers this is")
	cmd.Flags().StringVar(&listen, "listen", "", "HOST:PORT to listen at (default: its address in cluster.json)")
	limits.add(cmd.Flags())
	debugFlag(cmd.Flags(), &debugAddr)
	return cmd
}

func memberNames(h *home) string {
	var names []string
	for _, m := range h.Members {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

func newChunkd() *cobra.Command {
	var o chunkOptions
	var debugAddr, reserve, asHost string
	cmd := &cobra.Command{
		Use:   "chunkd",
		Short: "Run a chunk server",
		Long: `Run a chunk server, until SIGINT or SIGTERM. It keeps its shards in DIR/NAME and
becomes part of the cluster when it has found a metadata server. Labels say where
it stands: shards of one block go to different racks, hosts and disks.`,
		Example: `  quern chunkd --data /srv/quern --name chunkd-7 --listen 0.0.0.0:7420 --advertise 10.0.0.7:7420 \
    --label rack=r2 --label host=h7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.name == "" {
				return usagef("--name NAME is needed: the name that the certificate in DIR/pki was issued for")
			}
			var err error
			if o.reserve, err = parseSize(reserve); err != nil {
				return usagef("--reserve: %w", err)
			}
			if asHost != "" {
				transport.PretendHost(asHost)
			}
			return runServer(cmd, o.name, debugAddr, func(ctx context.Context, p *process) error {
				if n, ok := p.home.node(o.name); ok {
					if o.listen == "" {
						o.listen = n.Addr
					}
					labels := maps.Clone(n.Labels)
					if labels == nil {
						labels = map[string]string{}
					}
					if asHost != "" {
						labels["host"] = asHost
					}
					maps.Copy(labels, o.labels)
					o.labels = labels
				}
				if o.listen == "" {
					o.listen = "0.0.0.0:7420"
				}
				return p.startChunkd(ctx, o)
			})
		},
	}
	addDataFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "name of this chunk server, unique in the cluster")
	flags.StringVar(&o.listen, "listen", "", "HOST:PORT to listen at (default 0.0.0.0:7420)")
	flags.StringVar(&o.advertise, "advertise", "", "HOST:PORT at which the others reach it (default: what it listens at)")
	flags.StringToStringVar(&o.labels, "label", nil, "where it stands, KEY=VALUE: site, zone, rack, host, disk")
	addHostFlag(flags, &asHost)
	flags.StringVar(&reserve, "reserve", "1GiB", "space of the disk to leave free")
	debugFlag(flags, &debugAddr)
	return cmd
}

// runServer runs one server until the command's context is done.
func runServer(cmd *cobra.Command, name, debugAddr string, start func(context.Context, *process) error) (err error) {
	report := openStartReport()
	defer func() { report.failed(err) }()
	ctx := cmd.Context()
	log, err := newLog(cmd)
	if err != nil {
		return err
	}
	dir, _ := cmd.Flags().GetString("data")
	h, err := openHome(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.path("run"), 0o711); err != nil {
		return err
	}
	lock, err := takePidFile(h.pidPath(name))
	if errors.Is(err, errHeld) {
		pid, _ := livePid(h.pidPath(name))
		return fmt.Errorf("%s is running already on %s (process %d)", name, h.dir, pid)
	}
	if err != nil {
		return err
	}
	defer lock.release()
	p, err := newProcess(h, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop(context.WithoutCancel(ctx))) }()
	stopDebug, err := serveDebug(debugAddr, log)
	if err != nil {
		return err
	}
	p.onStop("debug server", stopDebug)
	if err := start(ctx, p); err != nil {
		return err
	}
	report.ready()
	<-ctx.Done()
	return nil
}
