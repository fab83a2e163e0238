package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quernfs/internal/transport"
)

func newAgent() *cobra.Command {
	var flags mountFlags
	var name, asHost, debugAddr string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run tasks of jobs on this host, without a mount",
		Long: `Run tasks of jobs on this host, until SIGINT or SIGTERM: what "quern mount --agent"
does, for a host that mounts nothing. On the host of a chunk server it reads that
server's shards from the disk, so that a job with split: shard moves almost
nothing. The data directory needs the certificates of a client and of an agent.`,
		Example: `  quern agent --data /srv/quern --name agent-7
  quern cert agent agent --data /srv/quern --out agent.tar   # for another host, with client's`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asHost != "" {
				transport.PretendHost(asHost)
			}
			return runServer(cmd, name, debugAddr, func(ctx context.Context, p *process) error {
				m := mountRole{name: name, host: asHost, flags: flags, servers: p.home.metaEndpoints(), scratch: p.home.path("compute")}
				var err error
				if m.id, err = p.home.identity("client", "client"); err != nil {
					return err
				}
				if m.agent, err = p.home.identity("agent", "agent"); err != nil {
					return err
				}
				_, err = p.startMount(ctx, m)
				return err
			})
		},
	}
	addDataFlag(cmd)
	fs := cmd.Flags()
	fs.StringVar(&name, "name", "agent-1", "name of this agent in DIR/run")
	flags.addBuffers(fs)
	addHostFlag(fs, &asHost)
	debugFlag(fs, &debugAddr)
	return cmd
}

// addHostFlag adds the flag for several hosts on one machine.
func addHostFlag(flags *pflag.FlagSet, name *string) {
	flags.StringVar(name, "as-host", "", "act as one of the processes of a host of this name: several hosts on one machine, which reach each other by the network only")
}
