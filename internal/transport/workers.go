package transport

import "sync"

// workers run handlers. Goroutines that are used again keep the stacks that
// their earlier calls have grown.
type workers struct {
	next    chan *servedCall
	stopped chan struct{}
	wg      *sync.WaitGroup
	spare   chan struct{} // an element for each goroutine that may idle
}

// idleWorkers is how many goroutines wait for the next call; more are started
// when needed, and end after one.
const idleWorkers = 128

func newWorkers(wg *sync.WaitGroup) *workers {
	return &workers{
		next:    make(chan *servedCall),
		stopped: make(chan struct{}),
		spare:   make(chan struct{}, idleWorkers),
		wg:      wg,
	}
}

// do runs c, at once, on a goroutine of the server.
func (w *workers) do(c *servedCall) {
	select {
	case w.next <- c:
	default:
		w.wg.Go(func() { w.work(c) })
	}
}

func (w *workers) work(c *servedCall) {
	for {
		c.run()
		select {
		case w.spare <- struct{}{}:
		default:
			return // enough idle ones
		}
		select {
		case c = <-w.next:
			<-w.spare
		case <-w.stopped:
			return
		}
	}
}
