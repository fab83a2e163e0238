package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// A mount writes the sessions that it has open into DIR/run/NAME.session. When
// it dies, whoever can prove its death (by its lock, or by that of the data
// directory) ends them, so that nobody has to wait for their leases to run out.

func (h *home) sessionPath(name string) string { return h.runPath(name + ".session") }

// saveSessions records the sessions of a mount, replacing what was recorded.
func saveSessions(path string, ids ...uint64) error {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&b, id)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// staleSessions lists the sessions of mounts that are dead: those whose process
// does not hold its file, and those of own, the caller's.
func (h *home) staleSessions(own string) (map[string][]uint64, error) {
	paths, err := filepath.Glob(h.sessionPath("*"))
	if err != nil {
		return nil, err
	}
	stale := map[string][]uint64{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".session")
		if pid, err := livePid(h.pidPath(name)); err != nil {
			return nil, err
		} else if pid != 0 && name != own {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(string(raw)) {
			if id, err := strconv.ParseUint(word, 10, 64); err == nil && id != 0 {
				stale[path] = append(stale[path], id)
			}
		}
	}
	return stale, nil
}

// endStaleSessions ends what staleSessions finds. A failure is no more than a
// delay, until the leases have run out.
func (p *process) endStaleSessions(ctx context.Context, own string, servers []*wire.Endpoint) {
	stale, err := p.home.staleSessions(own)
	if err == nil && len(stale) == 0 {
		return
	}
	if err == nil {
		err = p.endSessions(ctx, stale, servers)
	}
	if err != nil {
		p.log.Warn("sessions of processes that died go on until their leases run out", "err", err)
	}
}

func (p *process) endSessions(ctx context.Context, stale map[string][]uint64, servers []*wire.Endpoint) error {
	id, err := p.home.identity("client", "client")
	if err != nil {
		return err
	}
	pool := transport.NewPool(transport.PoolConfig{Identity: id, Local: p.local, Log: p.log})
	defer pool.Close()
	c, err := client.Open(ctx, client.Config{Servers: servers, Pool: pool, Name: "quern", Log: p.log})
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	ctx, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	for path, ids := range stale {
		for _, id := range ids {
			cmd := &wire.Command{Session: id, Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: id}}}
			if _, err := c.Do(ctx, cmd); err != nil && !errors.Is(err, wire.NoSession) && !errors.Is(err, wire.NotFound) {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
