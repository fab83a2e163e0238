package data

import (
	"context"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

const (
	// flushUploads is how many uploads that a Flush waits for may run beside
	// Config.Uploads. While they are all busy, drafts stay open, and further
	// files that are flushed join them: group commit.
	flushUploads = 2

	uploadTimeout = 60 * time.Second
	retryFirst    = 100 * time.Millisecond
	retryLast     = 2 * time.Second
)

// backOff is the wait before the try after n failed ones.
func backOff(n int) time.Duration {
	return min(retryLast, retryFirst<<min(n-1, 10))
}

// enqueue puts d into the queue r, or raises it there.
func (p *Path) enqueue(d *draft, r rank) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.rank >= r {
		return
	}
	d.rank = r
	p.queue[r] = append(p.queue[r], d)
	p.dispatch()
}

// dispatch starts uploads while there is one to start. With no space left one
// at a time tries whether there is some again, and the others follow it. p.mu is
// held.
func (p *Path) dispatch() {
	for {
		var d *draft
		limits := [taken]int{normal: p.cfg.Uploads, pressed: p.cfg.Uploads + flushUploads}
		for r := pressed; r > idle && d == nil; r-- {
			limit := limits[r]
			if p.isFull && p.lastErr != nil {
				limit = 1
			}
			for len(p.queue[r]) > 0 && p.uploading < limit && d == nil {
				if first := p.queue[r][0]; first.rank == r { // else it was raised
					d = first
				}
				p.queue[r][0] = nil
				p.queue[r] = p.queue[r][1:]
			}
		}
		if d == nil {
			return
		}
		d.rank = taken
		p.uploading++
		if !p.spawnLocked(func() { p.upload(d) }) {
			return
		}
	}
}

// upload seals d, if it still is open, and stores it.
func (p *Path) upload(d *draft) {
	d.mu.Lock()
	d.sealed = true
	d.busy = !d.freed
	d.mu.Unlock()
	d.timer.Stop()
	p.mu.Lock()
	p.unlist(d)
	first := d.tries == 0
	p.mu.Unlock()

	if first && d.busy {
		d = p.gather(d)
	}
	d.mu.Lock()
	empty := len(d.parts) == 0
	d.mu.Unlock()
	var blk *wire.Block
	var err error
	if !empty {
		blk, err = p.storeBlock(d)
	}

	d.mu.Lock()
	d.busy = false
	if blk != nil {
		d.block.Store(blk)
	}
	files := make([]*File, 0, len(d.parts))
	for f := range d.parts {
		files = append(files, f)
	}
	d.freeIfOver()
	d.mu.Unlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.uploading--
	if err != nil {
		p.uploadFailed(d, files, err)
	} else {
		p.lastErr = nil
		p.unstick(d)
		for _, f := range files {
			p.readyLocked(f)
		}
	}
	p.dispatch()
}

// uploadFailed plans the next try. p.mu is held.
func (p *Path) uploadFailed(d *draft, files []*File, err error) {
	p.stats.uploadErrors.Add(1)
	p.lastErr = err
	for _, f := range files {
		f.lastErr = err
	}
	d.tries++
	if d.tries == 1 && p.ctx.Err() == nil {
		p.log.Warn("a block could not be stored; it stays in memory and is tried again", "err", err)
	}
	if len(files) == 0 {
		return // all of it was dropped meanwhile
	}
	if noSpace(err) {
		p.stick(d)
	}
	p.after(backOff(d.tries), func() {
		p.mu.Lock()
		d.rank = idle
		p.mu.Unlock()
		p.enqueue(d, pressed)
	})
}

func noSpace(err error) bool {
	c := wire.CodeOf(err)
	return c == wire.NoSpace || c == wire.Quota
}

// storeBlock writes the content of d as a block of its own id.
func (p *Path) storeBlock(d *draft) (*wire.Block, error) {
	ctx, cancel := context.WithTimeout(p.ctx, uploadTimeout)
	defer cancel()
	t, spares, err := p.tickets.take(ctx, p.meta, d.policy)
	if err != nil {
		return nil, err
	}
	blk, err := p.blocks.WriteBlock(ctx, d.policy, t, spares, d.buf[:d.tail])
	if err != nil {
		p.tickets.forget(d.policy)
		return nil, err
	}
	p.stats.blocks.Add(1)
	p.stats.uploaded.Add(int64(d.tail))
	return blk, nil
}

// Tickets are asked for in advance, since asking costs a round trip, but not
// kept long, since they name servers that were alive and had room then.
const (
	ticketCount = 16
	ticketAge   = 5 * time.Second
)

// tickets is a stock of tickets for each policy.
type tickets struct {
	mu    sync.Mutex
	stock map[block.Policy]*stock
}

type stock struct {
	asking chan struct{} // capacity 1: taken while one asks for all

	mu      sync.Mutex // guards what follows
	tickets []*wire.Ticket
	spares  []uint32
	at      time.Time
}

func (t *tickets) of(pol block.Policy) *stock {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stock == nil {
		t.stock = map[block.Policy]*stock{}
	}
	s := t.stock[pol]
	if s == nil {
		s = &stock{asking: make(chan struct{}, 1)}
		t.stock[pol] = s
	}
	return s
}

// take returns a ticket that nobody else has.
func (t *tickets) take(ctx context.Context, meta Meta, pol block.Policy) (*wire.Ticket, []uint32, error) {
	s := t.of(pol)
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "allocate", Err: ctx.Err()}
	}
	if t, spares := s.next(); t != nil {
		return t, spares, nil
	}
	at := time.Now()
	a, err := meta.Allocate(ctx, &wire.Allocate{Policy: pol.ToWire(), Count: ticketCount})
	if err != nil {
		return nil, nil, err
	}
	if len(a.GetTickets()) == 0 {
		return nil, nil, wire.Errorf(wire.TooFew, "allocate", "", "meta gave no ticket")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets, s.spares, s.at = a.GetTickets()[1:], a.GetSpares(), at
	return a.GetTickets()[0], s.spares, nil
}

// next takes from the stock; nil: it is used up, or old.
func (s *stock) next() (*wire.Ticket, []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tickets) == 0 || time.Since(s.at) > ticketAge {
		return nil, nil
	}
	first := s.tickets[0]
	s.tickets = s.tickets[1:]
	return first, s.spares
}

// forget throws the stock of a policy away: a server in it failed.
func (t *tickets) forget(pol block.Policy) {
	s := t.of(pol)
	s.mu.Lock()
	s.tickets = nil
	s.mu.Unlock()
}
