package sim

import (
	"context"
	"fmt"
	"time"

	"quernfs/internal/wire"
)

// glance checks what must hold at every moment, faults or not.
func (c *cluster) glance() {
	c.checkLeases()
	c.glances++
	if c.glances%20 == 0 {
		c.checkDigests()
	}
}

// checkLeases: no two clients believe what one of them may change.
func (c *cluster) checkLeases() {
	type holder struct {
		client string
		mode   wire.Mode
	}
	held := map[uint64][]holder{}
	for _, m := range c.clients {
		s := m.now()
		if s == nil {
			continue
		}
		for ino, mode := range s.fs.Leases() {
			for _, h := range held[ino] {
				if h.mode == wire.Mode_WRITE || mode == wire.Mode_WRITE {
					c.violation("lease conflict on inode %d: client %d has %v, %s has %v", ino, m.slot+1, mode, h.client, h.mode)
				}
			}
			held[ino] = append(held[ino], holder{fmt.Sprintf("client %d", m.slot+1), mode})
		}
	}
}

// checkDigests: members that have applied the same entries have the same state.
func (c *cluster) checkDigests() (equal bool) {
	equal = true
	var first uint64
	for _, m := range c.members {
		if m.meta == nil {
			equal = false
			continue
		}
		index, sum, err := m.meta.Digest()
		if err != nil {
			equal = false
			continue
		}
		if first == 0 {
			first = index
		}
		equal = equal && index == first
		if other, known := c.digests[index]; known && other.sum != sum {
			c.violation("%s and %s differ at entry %d", m.host, other.host, index)
		} else if !known {
			c.digests[index] = digest{m.host, sum}
		}
	}
	return equal
}

type digest struct {
	host string
	sum  [32]byte
}

// settle waits until a cluster without faults is whole again.
func (c *cluster) settle() {
	time.Sleep(3 * time.Second) // what has been found out is reported by then
	deadline := time.Now().Add(5 * time.Minute)
	var lacking string
	for time.Now().Before(deadline) {
		if lacking = c.lacks(); lacking == "" {
			return
		}
		time.Sleep(time.Second)
	}
	c.violation("five minutes after the last fault: %s", lacking)
}

// lacksMembers says what is wrong with the group of metadata servers.
func (c *cluster) lacksMembers() string {
	for _, m := range c.members {
		if m.meta == nil {
			return m.host + " does not run"
		}
	}
	st, err := c.status()
	if err != nil {
		return fmt.Sprintf("no status: %v", err)
	}
	voters := 0
	for _, m := range st.GetMembers() {
		if m.GetVoter() {
			voters++
		}
	}
	if voters != len(c.members) || len(st.GetMembers()) != voters {
		return fmt.Sprintf("%d of %d members vote", voters, len(st.GetMembers()))
	}
	return ""
}

// lacks says what a whole cluster has and this has not.
func (c *cluster) lacks() string {
	if lacking := c.lacksMembers(); lacking != "" {
		return lacking
	}
	for _, s := range c.servers {
		if s.run == nil || s.run.store.Load() == nil {
			return s.host + " does not run"
		}
	}
	for _, m := range c.clients {
		if m.now() == nil {
			return fmt.Sprintf("client %d does not run", m.slot+1)
		}
	}
	if !c.checkDigests() {
		return "the members have not applied the same"
	}
	st, err := c.status()
	if err != nil {
		return fmt.Sprintf("no status: %v", err)
	}
	for _, n := range st.GetNodes() {
		if !n.GetAlive() {
			return n.GetNode().GetName() + " is not alive for the leader"
		}
	}
	if st.GetBlocksDegraded()+st.GetBlocksLost() > 0 {
		return fmt.Sprintf("%d blocks degraded, %d lost", st.GetBlocksDegraded(), st.GetBlocksLost())
	}
	return ""
}

func (c *cluster) status() (*wire.StatusAnswer, error) {
	for _, m := range c.members {
		if m.meta == nil || !m.meta.Leads() {
			continue
		}
		pool := m.proc.pool()
		defer pool.Close()
		ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		conn, err := pool.Get(ctx, endpoint(m.host))
		if err != nil {
			return nil, err
		}
		resp, err := conn.Call(ctx, wire.MethodQuery, &wire.Query{Op: &wire.Query_Status{Status: &wire.Status{}}})
		if err != nil {
			return nil, err
		}
		a, ok := resp.(*wire.Answer)
		if !ok || a.GetCode() != 0 {
			return nil, fmt.Errorf("status: %v", resp)
		}
		return a.GetStatus(), nil
	}
	return nil, fmt.Errorf("no leader")
}

// scrub verifies every shard. rot says that some are bad where a bit was turned
// over; elsewhere none may be.
func (c *cluster) scrub() (rot bool) {
	for _, s := range c.servers {
		if s.run == nil || s.run.store.Load() == nil {
			continue
		}
		got, err := s.run.store.Load().Scrub(context.Background(), 0)
		switch {
		case err == nil && len(got.Bad) > 0 && s == c.rotten:
			rot = true
		case err != nil || len(got.Bad) > 0:
			c.violation("scrub of %s: %d of %d shards are bad: %v %v", s.host, len(got.Bad), got.Shards, got.Bad, err)
		}
		c.scrubbed += got.Shards
	}
	if !rot {
		c.rotten = nil // it was in a gap, or has been mended
	}
	return rot
}

// checkAll looks through everything, in a cluster that is whole and idle.
func (c *cluster) checkAll(w *workload) {
	for _, m := range c.members {
		if m.meta == nil {
			continue
		}
		problems, err := m.meta.CheckState()
		if err != nil {
			c.violation("check the state of %s: %v", m.host, err)
		}
		for i, p := range problems {
			if i < 5 {
				c.violation("the state of %s contradicts itself: %v", m.host, p)
			}
		}
	}
	if c.scrub() {
		c.settle() // what has rotted is made anew
		c.rotten = nil
		c.scrub()
	}
	for slot, j := range w.writers {
		for i := range c.clients {
			m := c.clients[(slot+i)%len(c.clients)]
			s := m.now()
			if s == nil {
				continue
			}
			ctx, done := context.WithTimeout(context.Background(), time.Minute)
			wrong, may, err := j.read(ctx, s, 0, cells, i == 0)
			done()
			if wrong == nil && may != nil && !may.cleared() {
				wrong = may.wrong
			}
			if wrong != nil || err != nil {
				c.violation("at rest, client %d reads %v %v", m.slot+1, wrong, err)
			}
		}
	}
}
