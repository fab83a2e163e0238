package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"google.golang.org/protobuf/proto"

	"quernfs/chunkd"
	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta"
	"quernfs/meta/client"
	"quernfs/offload"
)

// process is what the roles that run in this process share, and the order in
// which they are to be ended.
type process struct {
	home  *home
	local *transport.Local
	force transport.Kind // tests: only this kind of connection
	log   *slog.Logger
	stops []stop

	limits meta.Limits // of users' jobs
}

type stop struct {
	what string
	stop func(context.Context) error
}

func newProcess(h *home, log *slog.Logger) (*process, error) {
	p := &process{home: h, local: transport.NewLocal(), log: log}
	switch v := os.Getenv("QUERN_TRANSPORT"); v {
	case "":
	case "quic":
		p.force = transport.QUIC
	case "unix":
		p.force = transport.Unix
	default:
		return nil, usagef("QUERN_TRANSPORT=%s: quic, unix or nothing is needed", v)
	}
	return p, nil
}

// onStop adds what ends a part that has been started. Parts end in the
// opposite order.
func (p *process) onStop(what string, f func(context.Context) error) {
	p.stops = append(p.stops, stop{what, f})
}

// stop ends all parts. It goes on past failures, which it returns.
func (p *process) stop(ctx context.Context) error {
	var failed []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		s := p.stops[i]
		if err := s.stop(ctx); err != nil {
			failed = append(failed, fmt.Errorf("stop %s: %w", s.what, err))
		}
	}
	p.stops = nil
	return errors.Join(failed...)
}

// serve opens the server of one role, with the pool of its own calls.
func (p *process) serve(role, name, listen, advertise string) (*transport.Server, *transport.Mux, *transport.Pool, error) {
	id, err := p.home.identity(role, name)
	if err != nil {
		return nil, nil, nil, err
	}
	mux := transport.NewMux()
	server, err := transport.NewServer(transport.ServerConfig{
		Mux: mux, Identity: id, Addr: listen, Advertise: advertise, UnixPath: p.home.sockPath(name),
		Local: p.local, Name: name, Log: p.log.With("server", name),
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	p.onStop(name+" server", server.Close)
	pool := p.pool(id, server)
	return server, mux, pool, nil
}

func (p *process) pool(id *transport.Identity, server *transport.Server) *transport.Pool {
	cfg := transport.PoolConfig{Identity: id, Local: p.local, Server: server, Log: p.log, Force: p.force}
	if p.force != 0 {
		cfg.Local = nil
	}
	pool := transport.NewPool(cfg)
	p.onStop("connections of "+id.Role+" "+id.Name, func(context.Context) error { return pool.Close() })
	return pool
}

// startMeta runs the metadata server NAME of the data directory.
func (p *process) startMeta(ctx context.Context, m member, listen string) (*meta.Server, error) {
	key, err := p.home.clusterKey()
	if err != nil {
		return nil, err
	}
	policy, err := block.ParsePolicy(p.home.Policy)
	if err != nil {
		return nil, err
	}
	server, mux, pool, err := p.serve("meta", m.Name, listen, m.Addr)
	if err != nil {
		return nil, err
	}
	cfg := meta.Config{
		Dir: p.home.path(m.Name), Name: m.Name, Addr: m.Addr, Key: key,
		Server: server, Mux: mux, Pool: pool, Policy: policy, Limits: p.limits,
		Right: p.home.beginPath(m.Name), LostHint: p.home.lostHint(),
		Jobs: offload.SchedulerFor[meta.JobView]{Scheduler: offload.NewScheduler(offload.SchedulerConfig{Log: p.log.With("jobs", m.Name)})},
		Log:  p.log.With("meta", m.Name),
	}
	for _, o := range p.home.Members {
		cfg.Members = append(cfg.Members, meta.Member{Name: o.Name, Addr: o.Addr, Endpoint: p.home.endpoint(o)})
	}
	s, err := meta.Open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	p.onStop(m.Name, s.Close)
	return s, nil
}

// chunkOptions are those of a chunk server beyond its place in the cluster.
type chunkOptions struct {
	name      string
	listen    string
	advertise string
	labels    map[string]string
	reserve   int64
}

// startChunkd runs a chunk server. It waits for the metadata servers the first
// time, since they give it its number.
func (p *process) startChunkd(ctx context.Context, o chunkOptions) error {
	key, err := p.home.clusterKey()
	if err != nil {
		return err
	}
	server, mux, pool, err := p.serve("chunkd", o.name, o.listen, o.advertise)
	if err != nil {
		return err
	}
	log := p.log.With("chunkd", o.name)
	c, err := client.Open(ctx, client.Config{Servers: p.home.metaEndpoints(), Pool: pool, Name: o.name, Log: log})
	if err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	p.onStop(o.name+" client", c.Close)
	n := &wire.Node{Name: o.name, Kind: "chunkd", Endpoint: server.Endpoint(), Labels: wireLabels(o.labels), State: "up"}
	id, err := register(ctx, c, n)
	if err != nil {
		return fmt.Errorf("%s: the metadata servers do not take it in: %w", o.name, err)
	}
	store, err := chunkd.Open(chunkd.Config{Dir: p.home.path(o.name), Node: id, Key: key, Reserve: o.reserve, Log: log})
	if err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	p.onStop(o.name+" store", func(context.Context) error { return store.Close() })
	store.Register(mux)
	blocks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, Log: log})
	p.onStop(o.name+" reader", func(context.Context) error { return blocks.Close() })
	p.background(o.name, func(ctx context.Context) error { return store.Run(ctx, heartbeats{c}, blocks) })
	return nil
}

// register makes a node known to the metadata servers, which may still be
// electing their leader.
func register(ctx context.Context, c *client.Client, n *wire.Node) (uint32, error) {
	ctx, done := context.WithTimeout(ctx, readyLimit)
	defer done()
	for {
		id, err := c.RegisterNode(ctx, n)
		if err == nil || ctx.Err() != nil || !transient(err) {
			return id, err
		}
	}
}

// transient: the call may well succeed when it is made again.
func transient(err error) bool {
	return wire.CodeOf(err).MayPass()
}

// heartbeats is what chunkd asks of the metadata servers.
type heartbeats struct{ c *client.Client }

func (h heartbeats) Heartbeat(ctx context.Context, hb *wire.Heartbeat) (*wire.HeartbeatReply, error) {
	return callMeta[*wire.HeartbeatReply](ctx, h.c, wire.MethodHeartbeat, hb)
}

func callMeta[R proto.Message](ctx context.Context, c *client.Client, m wire.Method, req proto.Message) (R, error) {
	resp, err := c.Call(ctx, m, req)
	if err != nil {
		var zero R
		return zero, err
	}
	return resp.(R), nil
}

// wireLabels are labels in the order of their keys.
func wireLabels(labels map[string]string) []*wire.Label {
	var list []*wire.Label
	for _, key := range sortedKeys(labels) {
		list = append(list, &wire.Label{Key: key, Value: labels[key]})
	}
	return list
}
