package meta

import (
	"time"

	"quernfs/internal/wire"
)

// ticketClock knows below which block id all tickets are old. It belongs to a
// term: a new leader starts anew, and lets tickets live longer rather than
// shorter.
type ticketClock struct {
	life  time.Duration
	marks []ticketMark // ascending; the first is the newest that is life old, if any is
}

type ticketMark struct {
	at   time.Time
	next uint64 // ids handed out later are not below
}

// pass notes that no id below next will be handed out from now on, and returns
// the id below which every ticket was handed out at least life ago; 0 if that is
// not known yet. It changes at most every quarter of life.
func (c *ticketClock) pass(now time.Time, next uint64) uint64 {
	if n := len(c.marks); n == 0 || now.Sub(c.marks[n-1].at) >= c.life/4 {
		c.marks = append(c.marks, ticketMark{now, next})
	}
	for len(c.marks) > 1 && now.Sub(c.marks[1].at) >= c.life {
		c.marks = c.marks[1:]
	}
	if now.Sub(c.marks[0].at) < c.life {
		return 0
	}
	return c.marks[0].next
}

// expireTickets moves the floor of block ids to where time has brought it.
func (l *leader) expireTickets(now time.Time) error {
	counts, err := l.s.fsm.state().Counts()
	if err != nil {
		return err
	}
	below := l.tickets.pass(now, l.ids.lowest(counts.NextBlock))
	if below <= counts.Floor {
		return nil
	}
	_, err = l.internal(&wire.Command{Op: &wire.Command_ExpireTickets{ExpireTickets: &wire.ExpireTickets{Below: below}}}, "expire tickets")
	if err == nil {
		l.log.Debug("tickets have expired", "below", below)
	}
	return err
}

// lowest is the lowest id that can still be handed out, when the state has
// reserved all below reserved.
func (r *idRange) lowest(reserved uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next < r.end {
		return r.next
	}
	// A range that was reserved since, and is used up already, was too: all that
	// comes is above both.
	return max(r.end, reserved)
}
