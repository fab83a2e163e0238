package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// faults injects what goes wrong. One goroutine runs it; restarts come due in
// its own loop, so that the order is its own.
type faults struct {
	c    *cluster
	w    *workload
	rnd  *rand.Rand
	due  []restart
	heal time.Time // of the network; zero: it is whole
}

// restart starts a host again at its time.
type restart struct {
	at   time.Time
	what string
	do   func() error
}

// run injects faults until the time is over, then mends everything.
func (f *faults) run(d time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		f.inject()
		next := time.Now().Add(time.Duration(f.rnd.Int64N(int64(12 * time.Second))))
		for time.Now().Before(next) {
			time.Sleep(250 * time.Millisecond)
			f.restart(false)
			if !f.heal.IsZero() && time.Now().After(f.heal) {
				f.c.log.Info("FAULT: the network is whole again")
				f.c.net.heal()
				f.heal = time.Time{}
			}
			f.c.glance()
		}
	}
	f.c.log.Info("FAULT: everything is mended")
	f.c.net.heal()
	f.heal = time.Time{}
	f.restart(true)
}

// restart starts what is due, or everything that is down.
func (f *faults) restart(all bool) {
	var left []restart
	due := f.due
	f.due = nil
	for _, r := range due {
		if !all && time.Now().Before(r.at) {
			left = append(left, r)
			continue
		}
		f.c.log.Info("FAULT: start", "what", r.what)
		if err := r.do(); err != nil {
			f.c.log.Info("FAULT: not started", "what", r.what, "err", err)
			left = append(left, restart{time.Now().Add(5 * time.Second), r.what, r.do})
		}
	}
	f.due = append(f.due, left...)
}

// later plans a restart, soon or after a while.
func (f *faults) later(what string, do func() error) {
	after := time.Duration(f.rnd.Int64N(int64(3 * time.Second)))
	if f.rnd.IntN(3) == 0 {
		after = time.Duration(f.rnd.Int64N(int64(40 * time.Second)))
	}
	f.due = append(f.due, restart{time.Now().Add(after), what, do})
}

func (f *faults) inject() {
	c, quiet := f.c, f.rnd.IntN(2) == 0
	switch n := f.rnd.IntN(100); {
	case n < 22:
		f.crashMember(c.members[f.rnd.IntN(len(c.members))], quiet)
	case n < 30: // the leader
		for _, m := range c.members {
			if m.meta != nil && m.meta.Leads() {
				f.crashMember(m, quiet)
				break
			}
		}
	case n < 36:
		m := c.members[f.rnd.IntN(len(c.members))]
		if m.meta == nil {
			return
		}
		c.log.Info("FAULT: an orderly stop", "host", m.host)
		if err := m.stop(); err != nil {
			c.log.Info("stop", "host", m.host, "err", err)
		}
		f.later(m.host, m.start)
	case n < 39: // a lost disk, of one member while the others are whole
		m := c.members[f.rnd.IntN(len(c.members))]
		if len(c.members) > 1 && c.lacksMembers() == "" {
			c.log.Info("FAULT: a disk is lost", "host", m.host)
			m.wipe()
			f.later(m.host, m.start)
		}
	case n < 41:
		f.loseServer(c.servers[f.rnd.IntN(len(c.servers))])
	case n < 43:
		s := c.servers[f.rnd.IntN(len(c.servers))]
		if d := s.disk; s.run != nil {
			c.log.Info("FAULT: a full disk", "host", s.host)
			d.full.Store(true)
			f.due = append(f.due, restart{time.Now().Add(time.Duration(f.rnd.Int64N(int64(30 * time.Second)))), "room on " + s.host, func() error {
				d.full.Store(false)
				return nil
			}})
		}
	case n < 46:
		f.flip(c.servers[f.rnd.IntN(len(c.servers))])
	case n < 55:
		f.crashServer(c.servers[f.rnd.IntN(len(c.servers))], quiet)
	case n < 62:
		f.crashClient(c.clients[f.rnd.IntN(len(c.clients))], quiet)
	case n < 67: // a power cut: every server at one moment, the clients too or not
		c.log.Info("FAULT: a power cut")
		for _, m := range c.members {
			f.crashMember(m, true)
		}
		for _, s := range c.servers {
			f.crashServer(s, true)
		}
		if f.rnd.IntN(2) == 0 {
			for _, m := range c.clients {
				f.crashClient(m, true)
			}
		}
	case n < 84:
		f.cut()
	case n < 92:
		host := f.hosts()[f.rnd.IntN(len(f.hosts()))]
		d := time.Duration(1+f.rnd.Int64N(600)) * time.Millisecond
		c.log.Info("FAULT: a slow host", "host", host, "delay", d)
		c.net.change(func() { c.net.slow[host] = d })
		f.mendLater()
	default:
		loss, breaks := f.rnd.Float64()*0.2, f.rnd.Float64()*0.02
		c.log.Info("FAULT: loss", "messages", loss, "connections", breaks)
		c.net.change(func() { c.net.loss, c.net.breaks = loss, breaks })
		f.mendLater()
	}
}

func (f *faults) mendLater() {
	f.heal = time.Now().Add(time.Duration(f.rnd.Int64N(int64(40 * time.Second))))
}

func (f *faults) hosts() []string {
	var all []string
	for _, m := range f.c.members {
		all = append(all, m.host)
	}
	for _, s := range f.c.servers {
		all = append(all, s.host)
	}
	for _, m := range f.c.clients {
		all = append(all, fmt.Sprintf("client-%d", m.slot+1))
	}
	return all
}

// cut takes some hosts off the others: both ways, or only one.
func (f *faults) cut() {
	hosts := f.hosts()
	apart := map[string]bool{}
	for range 1 + f.rnd.IntN(3) {
		apart[hosts[f.rnd.IntN(len(hosts))]] = true
	}
	way := f.rnd.IntN(4) // 0: out only, 1: in only, else both
	f.c.log.Info("FAULT: cut off", "hosts", fmt.Sprint(apart), "way", way)
	f.c.net.change(func() {
		for _, a := range hosts {
			for _, b := range hosts {
				if apart[a] && !apart[b] {
					if way != 1 {
						f.c.net.cut[pair{a, b}] = true
					}
					if way != 0 {
						f.c.net.cut[pair{b, a}] = true
					}
				}
			}
		}
	})
	f.mendLater()
}

func (f *faults) crashMember(m *member, quiet bool) {
	if m.meta == nil {
		return
	}
	f.c.log.Info("FAULT: crash", "host", m.host, "quiet", quiet)
	m.crash(quiet)
	f.later(m.host, m.start)
}

func (f *faults) crashServer(s *server, quiet bool) {
	if s.run == nil {
		return
	}
	f.c.log.Info("FAULT: crash", "host", s.host, "quiet", quiet)
	s.crash(quiet)
	f.later(s.host, s.start)
}

// loseServer: a chunk server comes back with an empty disk. That costs each
// block a shard, so it waits until the last such loss, and all rot, is mended:
// one shard is what every policy here can lose.
func (f *faults) loseServer(s *server) {
	if s.run == nil || f.c.rotten != nil || f.c.lacks() != "" {
		return
	}
	f.c.log.Info("FAULT: a disk is lost", "host", s.host)
	s.crash(true)
	s.disk = newDisk()
	f.later(s.host, s.start)
}

// flip turns a bit of a segment over, under the same rule. Who reads it, or the
// scrubber, has the shard made anew.
func (f *faults) flip(s *server) {
	if s.run == nil || f.c.rotten != nil || f.c.lacks() != "" {
		return
	}
	if at := s.disk.flip(f.rnd); at != "" {
		f.c.log.Info("FAULT: a bit is turned over", "host", s.host, "at", at)
		f.c.rotten = s
	}
}

func (f *faults) crashClient(m *mount, quiet bool) {
	if m.now() == nil {
		return
	}
	f.c.log.Info("FAULT: crash", "client", m.slot+1, "quiet", quiet)
	s := m.crash(quiet)
	f.w.killed(s, m.slot)
	f.later(fmt.Sprintf("client-%d", m.slot+1), func() error {
		// Starting waits for the metadata servers: beside the other faults.
		go func() {
			for m.now() == nil && m.start() != nil {
				time.Sleep(time.Second)
			}
		}()
		return nil
	})
}
