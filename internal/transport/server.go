package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// ServerConfig says how a server is reached and what it serves.
type ServerConfig struct {
	Mux      *Mux
	Identity *Identity // needed with Addr
	// Addr is the UDP address for QUIC, host:port; "" serves no QUIC. Port 0
	// takes a free one.
	Addr string
	// Advertise is the host:port that Endpoint tells others; by default the
	// address listened on, with the machine's name for an unspecified host.
	Advertise string
	UnixPath  string // "" serves no Unix socket
	Local     *Local // nil: not reachable in process
	Name      string // unique among the servers of Local
	Log       *slog.Logger
}

// Server answers calls with the handlers of a Mux, over each of QUIC, a Unix
// socket and the in-process registry that its config names.
type Server struct {
	cfg      ServerConfig
	log      *slog.Logger
	endpoint *wire.Endpoint

	ctx       context.Context // of calls: until Close has drained them
	cancel    context.CancelFunc
	streamCtx context.Context // of streams: until Close begins
	endStream context.CancelFunc
	done      chan struct{} // closed when nothing is served any more

	mu      sync.Mutex // guards what follows
	closing bool
	calls   map[uint64]context.CancelFunc // in process only: the others hang off ctx
	lastID  uint64
	running int           // calls being handled, of all kinds
	idle    chan struct{} // closed once closing and running is 0
	pipes   map[pipe]struct{}
	callers []*servedPipe // call pipes
	left    chan struct{} // closed once closing and there are no callers
	conns   map[*quic.Conn]struct{}

	workers  *workers
	unix     *net.UnixListener
	udp      *net.UDPConn
	quic     *quic.Transport
	listener *quic.Listener

	wg        sync.WaitGroup // every goroutine of the server
	closeOnce sync.Once
	closeErr  error
}

var errStopped = &wire.Error{Code: wire.Shutdown, Err: errors.New("the server is stopping")}

// NewServer starts to serve and returns at once. Methods may be added to the Mux
// before or after.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Mux == nil {
		return nil, wire.Errorf(wire.Invalid, "serve", cfg.Name, "no mux")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:   cfg,
		log:   cfg.Log,
		done:  make(chan struct{}),
		idle:  make(chan struct{}),
		left:  make(chan struct{}),
		calls: map[uint64]context.CancelFunc{},
		pipes: map[pipe]struct{}{},
		conns: map[*quic.Conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.streamCtx, s.endStream = context.WithCancel(s.ctx)
	s.workers = newWorkers(&s.wg)
	s.endpoint = &wire.Endpoint{Host: HostID(), Server: cfg.Name}
	if err := s.listen(); err != nil {
		s.unlisten()
		s.cancel()
		return nil, err
	}
	return s, nil
}

// listen opens everything that the config names, and begins to accept.
func (s *Server) listen() error {
	if s.cfg.Addr != "" {
		if err := s.listenQUIC(); err != nil {
			return err
		}
	}
	if s.cfg.UnixPath != "" {
		if err := s.listenUnix(); err != nil {
			return err
		}
	}
	if s.cfg.Local != nil {
		if err := s.cfg.Local.add(s.cfg.Name, s); err != nil {
			return err
		}
	}
	if s.listener != nil {
		s.wg.Go(s.acceptQUIC)
	}
	if s.unix != nil {
		s.wg.Go(s.acceptUnix)
	}
	return nil
}

// unlisten stops accepting; connections live on.
func (s *Server) unlisten() {
	if s.cfg.Local != nil {
		s.cfg.Local.remove(s.cfg.Name, s)
	}
	if s.unix != nil {
		s.unix.Close() // removes the socket, too
	}
	if s.listener != nil {
		s.listener.Close()
	}
}

// Endpoint says how the server is reached, with the identity of this host.
func (s *Server) Endpoint() *wire.Endpoint {
	return proto.CloneOf(s.endpoint)
}

// begin counts a call in, and says how many run; cancel (nil allowed) is called
// when the server stops waiting for it. ok is false once the server is closing.
func (s *Server) begin(cancel context.CancelFunc) (id uint64, running int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return 0, 0, false
	}
	s.running++
	if cancel != nil {
		s.lastID++
		id = s.lastID
		s.calls[id] = cancel
	}
	return id, s.running, true
}

func (s *Server) end(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != 0 {
		delete(s.calls, id)
	}
	s.running--
	if s.closing && s.running == 0 {
		close(s.idle)
	}
}

// goStream runs f on a goroutine of the server, with a context that ends when
// Close begins; false once it has begun.
func (s *Server) goStream(f func(context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.wg.Go(func() { f(s.streamCtx) })
	return true
}

// answer runs the handler of one call.
func (s *Server) answer(ctx context.Context, req *Request) (Reply, error) {
	if req.Method == wire.MethodDescribe {
		return Reply{Msg: s.Endpoint()}, nil
	}
	reply, err := s.cfg.Mux.serve(ctx, req)
	if err != nil {
		s.logPanic(err)
	}
	return reply, err
}

// runStream runs the handler of one stream.
func (s *Server) runStream(ctx context.Context, m wire.Method, r route, peer Peer, st Stream) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(m, v)
			s.logPanic(err)
		}
	}()
	return r.stream(ctx, peer, st)
}

func (s *Server) logPanic(err error) {
	var p *panicError
	if errors.As(err, &p) {
		s.log.Error("a handler panicked", "err", err, "stack", string(p.stack))
	}
}

// closeGrace is how long Close waits, past its context, for handlers whose
// contexts it has cancelled.
const closeGrace = time.Second

// Close stops the server: it accepts nothing more, ends the streams, lets the
// calls in flight finish until ctx is done, then cancels the rest. It returns
// wire.Timeout if handlers still run, with their contexts cancelled.
func (s *Server) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.shutdown(ctx) })
	return s.closeErr
}

// lingerLimit is how long Close waits for callers to take their last replies.
const lingerLimit = 500 * time.Millisecond

func (s *Server) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	if s.running == 0 {
		close(s.idle)
	}
	if len(s.callers) == 0 {
		close(s.left)
	}
	s.mu.Unlock()

	// Nothing new comes in.
	s.unlisten()
	s.endStream()
	s.sayBye()

	// What is being handled may finish, until ctx is done.
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for _, cancel := range s.calls {
		cancel()
	}
	s.mu.Unlock()

	// A caller that has all its replies closes its connection: until then they
	// may still be on their way.
	linger := time.NewTimer(lingerLimit)
	defer linger.Stop()
	select {
	case <-s.left:
	case <-linger.C:
	case <-ctx.Done():
	}

	// The rest is cut off.
	close(s.done)
	close(s.workers.stopped)
	s.mu.Lock()
	for p := range s.pipes {
		p.Close()
	}
	s.mu.Unlock()
	s.closeQUIC()

	ended := make(chan struct{})
	go func() { // ends with the last handler
		s.wg.Wait()
		<-s.idle
		close(ended)
	}()
	late := time.NewTimer(closeGrace)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
		return wire.Errorf(wire.Timeout, "close server", s.cfg.Name, "handlers still run")
	}
}
