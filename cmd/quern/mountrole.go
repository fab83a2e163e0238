package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"quernfs/chunkd"
	"quernfs/fs"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
	"quernfs/offload"
	"quernfs/offload/trial"
)

// mountRole is a mount in this process, with the agent beside it, or an agent
// alone.
type mountRole struct {
	mnt     string // "": nowhere
	source  string // what /proc/mounts shows as mounted
	host    string // name of the agent's host; "": this one's
	name    string // in DIR/run, and of the agent; "" outside of a data directory
	flags   mountFlags
	id      *transport.Identity // of a client
	agent   *transport.Identity // nil: no agent
	servers []*wire.Endpoint
	scratch string // for the agent's modules and compiled code
}

// hostName is what the mount's host is called.
func (m *mountRole) hostName() (string, error) {
	if m.host != "" {
		return m.host, nil
	}
	return os.Hostname()
}

// remembers: the sessions are recorded in a data directory.
func (m *mountRole) remembers() bool { return m.name != "" }

// startMount opens a session and mounts it, if there is where; the returned
// channel is closed when the mount has ended. The parts are started so that
// their opposite order is that of a clean end: agent (whose programs use the
// mount), unmount, filesystem, connections.
func (p *process) startMount(ctx context.Context, m mountRole) (<-chan struct{}, error) {
	cfg, options, err := m.flags.parse()
	if err != nil {
		return nil, err
	}
	log, label := p.log.With("mount", m.mnt), m.mnt
	if m.mnt == "" {
		log, label = p.log, m.name
	}
	pool := p.pool(m.id, nil)
	// What the overlay commands and the mount reports has a session of its own: it
	// conflicts with the leases of the mount, and what is staged for a job ends with it.
	plain, err := client.Open(ctx, client.Config{Servers: m.servers, Pool: pool, Name: "jobs of " + label, Holder: holdsNothing{}, Log: log})
	if err != nil {
		return nil, err
	}
	flushed := false
	p.onStop("client", func(ctx context.Context) error {
		err := plain.Close(ctx)
		if err == nil && flushed && m.remembers() {
			_ = os.Remove(p.home.sessionPath(m.name))
		}
		return err
	})
	if m.remembers() {
		p.endStaleSessions(ctx, m.name, m.servers)
	}
	var sessions []uint64
	remember := func(id uint64) error {
		sessions = append(sessions, id)
		if !m.remembers() {
			return nil
		}
		return saveSessions(p.home.sessionPath(m.name), sessions...)
	}
	if err := remember(plain.Session()); err != nil {
		return nil, err
	}
	reports := newReports(plain)
	p.onStop("reports", reports.close)
	chunks := chunkd.NewClient(chunkd.ClientConfig{Pool: pool, OnBad: reports.bad, Log: log})
	p.onStop("chunk client", func(context.Context) error { return chunks.Close() })

	cfg.Servers, cfg.Pool, cfg.Chunks, cfg.Name, cfg.Log = m.servers, pool, chunks, label, log
	filesystem, err := fs.New(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", label, err)
	}
	p.onStop("filesystem", func(ctx context.Context) error {
		err := filesystem.Close(ctx)
		flushed = err == nil
		return err
	})
	if err := remember(filesystem.Session()); err != nil {
		return nil, err
	}
	files := jobFiles{filesystem}
	if m.mnt != "" {
		host, err := m.hostName()
		if err != nil {
			return nil, err
		}
		filesystem.SetOverlay(offload.OverlayFor[fs.OverlayFile]{
			Overlay: offload.NewOverlay(offload.OverlayConfig{Files: files, Meta: plain, Host: host, Log: log}),
		})
	}
	runAgent := func() {}
	var at mountPlace
	if m.agent != nil {
		var session uint64
		if session, runAgent, err = p.prepareAgent(ctx, m, files, at.dir); err != nil {
			return nil, err
		}
		if err := remember(session); err != nil {
			return nil, err
		}
	}
	if m.mnt == "" {
		runAgent()
		return nil, nil
	}
	options.Source = m.source
	mount, err := filesystem.Mount(m.mnt, options)
	if err != nil {
		return nil, err
	}
	p.onStop("mount", mount.Unmount)
	at.mount.Store(mount)
	runAgent()
	return mount.Done(), nil
}

// mountPlace knows where the mount is, once it is, and until it has ended.
type mountPlace struct{ mount atomic.Pointer[fs.Mount] }

func (a *mountPlace) dir() string {
	m := a.mount.Load()
	if m == nil {
		return ""
	}
	select {
	case <-m.Done():
		return ""
	default:
		return m.Dir()
	}
}

// prepareAgent registers what runs tasks of jobs on this host, with the files of
// the mount. It returns the agent's session, and what makes it begin.
func (p *process) prepareAgent(ctx context.Context, m mountRole, files offload.Files, mounted func() string) (session uint64, run func(), err error) {
	host, err := m.hostName()
	if err != nil {
		return 0, nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	log := p.log.With("agent", m.name)
	pool := p.pool(m.agent, nil)
	// A session of its own: what the agent changes conflicts with the leases of
	// the mount's, so the mount learns of results as every other one does.
	c, err := client.Open(ctx, client.Config{Servers: m.servers, Pool: pool, Name: "agent of " + cmp.Or(m.mnt, m.name), Holder: holdsNothing{}, Log: log})
	if err != nil {
		return 0, nil, fmt.Errorf("agent: %w", err)
	}
	p.onStop("agent client", c.Close)
	slots := m.flags.slots
	if slots <= 0 {
		slots = runtime.NumCPU()
	}
	limit, err := m.flags.outputLimit()
	if err != nil {
		return 0, nil, err
	}
	n := &wire.Node{
		Name: host + ":" + m.name, Kind: "agent", State: "up", Runtimes: []string{"wasm"},
		Labels:   append([]*wire.Label{{Key: "host", Value: host}}, wireLabels(m.flags.labels)...),
		Endpoint: &wire.Endpoint{Host: transport.HostID(), Server: host + ":" + m.name},
	}
	fpga, err := m.flags.fpga.config()
	if err != nil {
		return 0, nil, err
	}
	programs := m.flags.exec.open(ctx, exe, filepath.Join(m.scratch, "exec"), log)
	if n.Exec = programs.Offer(); n.Exec != nil {
		n.Runtimes = append(n.Runtimes, "exec")
	}
	id, err := register(ctx, c, n)
	if err != nil {
		return 0, nil, fmt.Errorf("agent: %w", err)
	}
	agent, err := offload.NewAgent(offload.AgentConfig{
		Node: id, Host: host, Files: files, Meta: c, Worker: []string{exe, "worker", "wasm"},
		Devices: []string{exe, "worker"}, WorkerEnv: trial.Environ(os.Environ()),
		Slots: slots, OutputLimit: limit, Dir: m.scratch, Exec: programs, FPGA: fpga, Mounted: mounted, Log: log,
	})
	if err != nil {
		return 0, nil, err
	}
	return c.Session(), func() {
		p.background("agent", agent.Run)
		p.background("agent heartbeats", func(ctx context.Context) error {
			boot := uint64(time.Now().UnixNano())
			return beat(ctx, c, func() *wire.Heartbeat {
				return &wire.Heartbeat{Node: id, Slots: uint32(agent.Slots()), Busy: uint32(agent.Busy()), Boot: boot, Devices: agent.Devices(), Speed: agent.Speed()}
			})
		})
	}, nil
}

// beat says once a second that the node lives, and what state says of it.
func beat(ctx context.Context, c *client.Client, state func() *wire.Heartbeat) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		call, done := context.WithTimeout(ctx, 10*time.Second)
		// One that is lost is made up for by the next.
		_, _ = c.Call(call, wire.MethodHeartbeat, state())
		done()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// holdsNothing is the Holder of a session that caches nothing: a lease that
// comes with a reply is given up when it is asked for.
type holdsNothing struct{}

func (holdsNothing) Recall(r *wire.Recall) *wire.Recalled {
	return &wire.Recalled{Id: r.GetId(), Ino: r.GetIno(), Mode: wire.Mode_NONE}
}
func (holdsNothing) Held() []*wire.Grant      { return nil }
func (holdsNothing) Locks() []*wire.LockClaim { return nil }
func (holdsNothing) Reclaimed([]*wire.Grant)  {}
func (holdsNothing) Lapsed()                  {}
func (holdsNothing) Ended()                   {}
func (holdsNothing) Nodes([]*wire.NodeStatus) {}
func (holdsNothing) Capability([]byte)        {}

// background runs f until the process stops.
func (p *process) background(what string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	p.onStop(what, func(context.Context) error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

// parse turns the flags into what fs takes.
func (m *mountFlags) parse() (cfg fs.Config, o fs.MountOptions, err error) {
	if cfg.DirtyLimit, err = parseSize(m.dirty); err != nil {
		return cfg, o, usagef("--write-buffer: %w", err)
	}
	if cfg.CacheBytes, err = parseSize(m.cache); err != nil {
		return cfg, o, usagef("--read-cache: %w", err)
	}
	if err := m.exec.check(); err != nil {
		return cfg, o, err
	}
	if _, err := m.fpga.config(); err != nil {
		return cfg, o, err
	}
	o.AllowOther = os.Geteuid() == 0
	for _, option := range m.options {
		// Of options that contradict each other the last counts.
		switch option = strings.TrimSpace(option); option {
		case "ro", "rw":
			o.ReadOnly = option == "ro"
		case "relatime", "atime", "diratime", "async", "":
		case "strictatime":
			return cfg, o, errStrictAtime
		case "noatime":
			o.NoAtime = true
		case "nodiratime":
			o.NoDirAtime = true
		case "suid", "nosuid":
			o.Suid = option == "suid"
		case "dev", "nodev":
			o.Dev = option == "dev"
		case "noexec", "exec":
			o.NoExec = option == "noexec"
		case "allow_other":
			o.AllowOther = true
		case "nonempty":
			o.NonEmpty = true
		case "compute=listed", "compute=hidden":
			o.ListCompute = option == "compute=listed"
		default:
			return cfg, o, usagef("mount option %s: known ones are ro, rw, noatime, nodiratime, suid, dev, noexec, allow_other, nonempty, compute=listed", option)
		}
	}
	return cfg, o, nil
}

// reports carries what a mount found wrong with shards to the metadata
// servers, so that no reader has to wait for that.
type reports struct {
	queue chan *wire.BadShard
	done  chan struct{}
	stop  context.CancelFunc
}

func newReports(c *client.Client) *reports {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reports{queue: make(chan *wire.BadShard, 1024), done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(r.done)
		for {
			select {
			case b := <-r.queue:
				call, done := context.WithTimeout(ctx, 10*time.Second)
				// A report that does not arrive is made again by the next reader,
				// or by the scrubber.
				_, _ = c.Call(call, wire.MethodBadShard, b)
				done()
			case <-ctx.Done():
				return
			}
		}
	}()
	return r
}

// bad takes a report without waiting.
func (r *reports) bad(b *wire.BadShard) {
	select {
	case r.queue <- b:
	default:
	}
}

func (r *reports) close(context.Context) error {
	r.stop()
	<-r.done
	return nil
}
