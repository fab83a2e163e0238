package main

import (
	"context"
	"fmt"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// votersWait is how long `quern up` waits until its metadata servers have taken
// each other in. One whose directory is empty is filled first.
const votersWait = 60 * time.Second

// awaitVoters waits until all metadata servers of the data directory vote, so
// that one may fail from then on. If some do not in time, the others go on
// without them, and that is said.
func (p *process) awaitVoters(ctx context.Context) error {
	if len(p.home.Members) == 1 {
		return nil
	}
	id, err := p.home.identity("client", "client")
	if err != nil {
		return err
	}
	pool := transport.NewPool(transport.PoolConfig{Identity: id, Local: p.local, Log: p.log})
	defer pool.Close()
	c, err := client.Open(ctx, client.Config{Servers: p.home.metaEndpoints(), Pool: pool, Name: "quern", Log: p.log})
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	limit, done := context.WithTimeout(ctx, votersWait)
	defer done()
	votes := 0
	for {
		n, err := countVoters(limit, c)
		if err == nil {
			votes = n
		}
		switch {
		case votes == len(p.home.Members) || ctx.Err() != nil:
			return nil
		case limit.Err() != nil && votes == 0:
			return fmt.Errorf("no metadata server leads (%w): a majority of those that have their state is needed, see the logs in %s", err, p.home.path("run"))
		case limit.Err() != nil:
			p.log.Warn("not all metadata servers vote yet: fewer than usual may fail", "vote", votes, "of", len(p.home.Members))
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit.Done():
		}
	}
}

// countVoters asks the leader.
func countVoters(ctx context.Context, c *client.Client) (int, error) {
	a, err := c.Ask(ctx, &wire.Query{Op: &wire.Query_Status{Status: &wire.Status{}}})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, m := range a.GetStatus().GetMembers() {
		if m.GetVoter() {
			n++
		}
	}
	return n, nil
}
