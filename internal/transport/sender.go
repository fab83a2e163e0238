package transport

import (
	"errors"
	"runtime"
	"sync"
)

// sender writes the frames of many callers to one pipe. Frames that come while
// a write is going on leave together in the next one. A caller that finds the
// pipe free writes by itself, without waiting; what does not fit is written by
// the sender's own goroutine, so that no caller waits for a slow peer.
type sender struct {
	p    pipe
	fail func(error) // told once that the pipe broke

	mu      sync.Mutex
	room    chan struct{} // if somebody waits for queue to shrink: closed when it has
	queue   []byte        // frames to be written next
	spare   []byte        // the other buffer
	rest    []byte        // the unwritten end of a write, before queue
	writing bool          // somebody writes: only they touch the pipe
	err     error
	wake    chan struct{} // the goroutine is to take over writing
}

// queueLimit bounds the bytes that wait for a slow peer; past it senders wait.
const queueLimit = 4 << 20

// inlineWrites is how many times a caller writes what others have queued
// meanwhile before it leaves that to the goroutine.
const inlineWrites = 2

func newSender(p pipe, fail func(error)) *sender {
	return &sender{p: p, fail: fail, wake: make(chan struct{}, 1)}
}

// errNoRoom: the caller gave up before its frame was queued.
var errNoRoom = errors.New("the peer takes nothing")

// atOnce is for a frame that is not worth waiting for.
var atOnce = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// send queues or writes one frame. It waits only while queueLimit is exceeded,
// which the pipe's stall limit bounds, and then no longer than until done is
// closed (nil: never), which returns errNoRoom. With crowd, others are likely to
// send in the same moment: their frames are let into the same write.
func (s *sender) send(frame []byte, done <-chan struct{}, crowd bool) error {
	s.mu.Lock()
	for s.err == nil && len(s.queue) > queueLimit {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-done:
			return errNoRoom
		}
		s.mu.Lock()
	}
	if s.err != nil {
		err := s.err
		s.mu.Unlock()
		return err
	}
	s.queue = append(s.queue, frame...)
	if s.writing {
		s.mu.Unlock()
		return nil
	}
	s.writing = true
	if crowd {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	for range inlineWrites {
		batch := s.take()
		s.mu.Unlock()
		n, err := s.p.try(batch)
		s.mu.Lock()
		if err != nil {
			s.broken(err) // unlocks
			return err
		}
		if n < len(batch) {
			s.rest = batch[n:]
			break
		}
		s.give(batch)
		if len(s.queue) == 0 {
			s.writing = false
			s.mu.Unlock()
			return nil
		}
	}
	s.mu.Unlock()
	s.wake <- struct{}{} // never waits: only the holder of writing sends
	return nil
}

// take returns what is queued; s.mu is held.
func (s *sender) take() []byte {
	batch := s.queue
	s.queue, s.spare = s.spare[:0], nil
	return batch
}

// give keeps the buffer of a batch that has been written; s.mu is held. A large
// one is let go.
func (s *sender) give(batch []byte) {
	if cap(batch) <= 1<<20 {
		s.spare = batch[:0]
	}
	s.freed()
}

// freed wakes those that wait for room; s.mu is held.
func (s *sender) freed() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// broken fails the sender; s.mu is held and released.
func (s *sender) broken(err error) {
	first := s.err == nil
	if first {
		s.err = err
	}
	s.writing = false
	s.queue, s.spare, s.rest = nil, nil, nil
	s.freed()
	s.mu.Unlock()
	if first {
		s.fail(err)
	}
}

// stop fails later sends with err.
func (s *sender) stop(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.freed()
	s.mu.Unlock()
}

// run writes what callers left over, until stopped is closed.
func (s *sender) run(stopped <-chan struct{}) {
	for {
		select {
		case <-stopped:
			return
		case <-s.wake:
		}
		s.mu.Lock()
		for {
			rest := s.rest
			s.rest = nil
			batch := s.take()
			s.mu.Unlock()
			err := writeSlowly(s.p, rest)
			if err == nil {
				err = writeSlowly(s.p, batch)
			}
			s.mu.Lock()
			if err != nil {
				s.broken(err)
				return
			}
			s.give(batch)
			if len(s.queue) == 0 {
				break
			}
		}
		s.writing = false
		s.mu.Unlock()
	}
}
