package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quernfs/internal/block"
	"quernfs/internal/rawtext"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// status is what `quern status --json` prints. Fields are only ever added.
type status struct {
	Cluster      string         `json:"cluster"`
	Policy       string         `json:"policy"`
	Members      []memberInfo   `json:"metadata_servers"`
	ChunkServers []nodeInfo     `json:"chunk_servers"`
	Others       []nodeInfo     `json:"other_nodes"`
	Blocks       blockInfo      `json:"blocks"`
	Inodes       uint64         `json:"inodes"`
	LiveBytes    uint64         `json:"live_bytes"`
	Sessions     []sessionsInfo `json:"sessions"`
}

type memberInfo struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"`
	Applied uint64 `json:"applied"`
}

type nodeInfo struct {
	ID     uint32            `json:"id"`
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Addr   string            `json:"addr"`
	Labels map[string]string `json:"labels"`
	State  string            `json:"state"`
	Alive  bool              `json:"alive"`
	Total  uint64            `json:"total_bytes"`
	Free   uint64            `json:"free_bytes"`
	Shards uint64            `json:"shards"`
	Seen   time.Time         `json:"seen"`
	Slots  uint32            `json:"slots,omitempty"`
	Busy   uint32            `json:"busy,omitempty"`
	Full   bool              `json:"full"`
	Failed bool              `json:"disk_failed"`
}

type blockInfo struct {
	Healthy  uint64 `json:"healthy"`
	Degraded uint64 `json:"degraded"`
	Lost     uint64 `json:"lost"`
	Deleting uint64 `json:"deleting"`
}

type sessionsInfo struct {
	ID          uint64    `json:"id"`
	Name        string    `json:"name"`
	Host        string    `json:"host"`
	LeasesRead  uint64    `json:"leases_read"`
	LeasesWrite uint64    `json:"leases_write"`
	Seen        time.Time `json:"seen"`
}

func newStatus() *cobra.Command {
	var target clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the servers, blocks, sessions and leases of a cluster",
		Example: `  quern status --data ~/quern
  quern status --meta 10.0.0.1:7400 --json | jq .blocks`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return target.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				s, err := askStatus(ctx, c)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), s)
				}
				return s.print(cmd.OutOrStdout(), time.Now())
			})
		},
	}
	target.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printJSON prints v. A byte of a name that is not part of UTF-8 is an escape,
// \udc80 to \udcff (package rawtext).
func printJSON(out io.Writer, v any) error {
	text, err := rawtext.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = out.Write(append(text, '\n'))
	}
	return err
}

// withClient calls f with a client of the cluster that has no session.
func (c *clusterFlags) withClient(ctx context.Context, f func(context.Context, *client.Client) error) error {
	h, pki, err := c.resolve()
	if err != nil {
		return err
	}
	id, err := transport.LoadIdentity(pki)
	if err != nil {
		return err
	}
	pool := transport.NewPool(transport.PoolConfig{Identity: id, Log: slog.New(slog.DiscardHandler)})
	defer pool.Close()
	m, err := client.Open(ctx, client.Config{Servers: c.servers(h), Pool: pool, Name: "quern", CallTimeout: 15 * time.Second})
	if err != nil {
		return err
	}
	defer m.Close(context.WithoutCancel(ctx))
	return f(ctx, m)
}

func askStatus(ctx context.Context, c *client.Client) (*status, error) {
	a, err := c.Ask(ctx, &wire.Query{Cred: &wire.Cred{}, Op: &wire.Query_Status{Status: &wire.Status{Leases: true}}})
	if err != nil {
		return nil, fmt.Errorf("no metadata server answers as leader: %w", err)
	}
	return statusOf(a.GetStatus()), nil
}

func statusOf(a *wire.StatusAnswer) *status {
	s := &status{
		Cluster: hex.EncodeToString(a.GetClusterId()),
		Blocks:  blockInfo{a.GetBlocksHealthy(), a.GetBlocksDegraded(), a.GetBlocksLost(), a.GetDeleting()},
		Inodes:  a.GetInodes(), LiveBytes: a.GetLiveBytes(),
		Members: []memberInfo{}, ChunkServers: []nodeInfo{}, Others: []nodeInfo{}, Sessions: []sessionsInfo{},
	}
	if a.GetPolicy() != nil {
		s.Policy = block.FromWire(a.GetPolicy()).String()
	}
	for _, m := range a.GetMembers() {
		s.Members = append(s.Members, memberInfo{m.GetName(), m.GetAddr(), m.GetLeader(), m.GetVoter(), m.GetAlive(), m.GetApplied()})
	}
	for _, n := range a.GetNodes() {
		labels := map[string]string{}
		for _, l := range n.GetNode().GetLabels() {
			labels[l.GetKey()] = l.GetValue()
		}
		info := nodeInfo{
			ID: n.GetNode().GetId(), Name: n.GetNode().GetName(), Kind: n.GetNode().GetKind(), Addr: n.GetNode().GetEndpoint().GetAddr(),
			Labels: labels, State: n.GetNode().GetState(), Alive: n.GetAlive(), Total: n.GetTotal(), Free: n.GetFree(),
			Shards: n.GetShards(), Seen: time.Unix(0, n.GetSeenNs()).UTC(), Slots: n.GetSlots(), Busy: n.GetBusy(),
			Full: n.GetFull(), Failed: n.GetFailed(),
		}
		if info.Kind == "chunkd" {
			s.ChunkServers = append(s.ChunkServers, info)
		} else {
			s.Others = append(s.Others, info)
		}
	}
	for _, e := range a.GetSessions() {
		s.Sessions = append(s.Sessions, sessionsInfo{
			e.GetSession().GetId(), e.GetSession().GetName(), e.GetSession().GetHost(),
			e.GetLeasesRead(), e.GetLeasesWrite(), time.Unix(0, e.GetSeenNs()).UTC(),
		})
	}
	return s
}

func (s *status) print(out io.Writer, now time.Time) error {
	fmt.Fprintf(out, "cluster %s, policy %s: %d inodes, %s of data\n", s.Cluster, s.Policy, s.Inodes, size(s.LiveBytes))
	fmt.Fprintf(out, "blocks: %d healthy, %d degraded, %d lost; %d to be deleted\n\n", s.Blocks.Healthy, s.Blocks.Degraded, s.Blocks.Lost, s.Blocks.Deleting)
	t := newTable(out, "METADATA SERVER", "ADDRESS", "ROLE", "ALIVE", "APPLIED")
	for _, m := range s.Members {
		role := "follower"
		if m.Leader {
			role = "leader"
		} else if !m.Voter {
			role = "learner"
		}
		t.row(m.Name, m.Addr, role, yesNo(m.Alive), m.Applied)
	}
	t.flush()
	fmt.Fprintln(out)
	t = newTable(out, "CHUNK SERVER", "ADDRESS", "LABELS", "STATE", "ALIVE", "SHARDS", "USED", "FREE", "SEEN")
	for _, n := range s.ChunkServers {
		t.row(n.Name, n.Addr, labelText(n.Labels), n.stateText(), yesNo(n.Alive), n.Shards, size(n.Total-min(n.Free, n.Total)), size(n.Free), ago(now, n.Seen.UnixNano()))
	}
	t.flush()
	if len(s.Others) > 0 {
		fmt.Fprintln(out)
		t = newTable(out, "NODE", "KIND", "LABELS", "ALIVE", "BUSY", "SEEN")
		for _, n := range s.Others {
			t.row(n.Name, n.Kind, labelText(n.Labels), yesNo(n.Alive), fmt.Sprintf("%d of %d", n.Busy, n.Slots), ago(now, n.Seen.UnixNano()))
		}
		t.flush()
	}
	fmt.Fprintln(out)
	t = newTable(out, "SESSION", "NAME", "HOST", "READ LEASES", "WRITE LEASES", "SEEN")
	for _, e := range s.Sessions {
		t.row(e.ID, e.Name, e.Host, e.LeasesRead, e.LeasesWrite, ago(now, e.Seen.UnixNano()))
	}
	return t.flush()
}

// stateText is the state that the operator gave the server, and what keeps it from
// taking data.
func (n nodeInfo) stateText() string {
	switch {
	case n.Failed:
		return n.State + ", disk fails"
	case n.Full:
		return n.State + ", full"
	}
	return n.State
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "-"
	}
	var list []string
	for _, k := range sortedKeys(labels) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, ",")
}
