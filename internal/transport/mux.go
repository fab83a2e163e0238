package transport

import (
	"context"
	"fmt"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// Mux holds the handlers of a server and the roles that may call each. Methods
// may be added while a server is using it; until a method is added, calls of it
// are answered with wire.Unavailable.
type Mux struct {
	mu     sync.Mutex // serializes writers
	routes atomic.Pointer[map[wire.Method]route]
}

// route is one method's handler; exactly one of call, stream and raw is set.
type route struct {
	roles  []string
	call   Handler
	stream StreamHandler
	raw    rawHandler
	admit  func(*wire.Opening) error // of raw: refuses a stream before it begins
}

// rawHandler takes over a stream of bytes; it owns conn.
type rawHandler func(peer Peer, conn net.Conn)

// NewMux makes a Mux that serves nothing.
func NewMux() *Mux {
	m := new(Mux)
	m.routes.Store(&map[wire.Method]route{})
	return m
}

// Handle serves calls of method by peers in one of roles; with no roles, by
// any authenticated peer. A method has one handler: a second one replaces the
// first.
func (m *Mux) Handle(method wire.Method, roles []string, h Handler) {
	m.add(method, route{roles: slices.Clone(roles), call: h})
}

// HandleStream serves streams of method.
func (m *Mux) HandleStream(method wire.Method, roles []string, h StreamHandler) {
	m.add(method, route{roles: slices.Clone(roles), stream: h})
}

// handleRaw serves byte streams of method that admit lets in.
func (m *Mux) handleRaw(method wire.Method, roles []string, admit func(*wire.Opening) error, h rawHandler) {
	m.add(method, route{roles: slices.Clone(roles), raw: h, admit: admit})
}

func (m *Mux) add(method wire.Method, r route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	routes := maps.Clone(*m.routes.Load())
	routes[method] = r
	m.routes.Store(&routes)
}

// HandleCall is Mux.Handle for a method without payload or file, with the
// types of its messages.
func HandleCall[Q, R proto.Message](m *Mux, method wire.Method, roles []string, h func(context.Context, Peer, Q) (R, error)) {
	m.Handle(method, roles, func(ctx context.Context, req *Request) (Reply, error) {
		q, ok := req.Msg.(Q)
		if !ok {
			return Reply{}, wire.Errorf(wire.Invalid, method.String(), "", "the request is not one of this call")
		}
		r, err := h(ctx, req.Peer, q)
		if err != nil {
			return Reply{}, err
		}
		return Reply{Msg: r}, nil
	})
}

// route finds the handler of method if peer may use it.
func (m *Mux) route(method wire.Method, peer Peer) (route, error) {
	r, ok := (*m.routes.Load())[method]
	if !ok {
		return route{}, wire.Errorf(wire.Unavailable, method.String(), "", "this server does not serve it (yet)")
	}
	if len(r.roles) > 0 && !slices.Contains(r.roles, peer.Role) {
		return route{}, wire.Errorf(wire.Forbidden, method.String(), "", "role %q of %q may not call it", peer.Role, peer.Name)
	}
	return r, nil
}

// serve answers one call. A panic of the handler becomes wire.Internal, so that
// one bad request does not take the other users' server down.
func (m *Mux) serve(ctx context.Context, req *Request) (reply Reply, err error) {
	r, err := m.route(req.Method, req.Peer)
	if err != nil {
		return Reply{}, err
	}
	if r.call == nil {
		return Reply{}, wire.Errorf(wire.Invalid, req.Method.String(), "", "it is a stream, not a call")
	}
	defer func() {
		if v := recover(); v != nil {
			reply, err = Reply{}, panicked(req.Method, v)
		}
	}()
	reply, err = r.call(ctx, req)
	if err == nil && reply.Msg == nil {
		reply.release()
		return Reply{}, wire.Errorf(wire.Internal, req.Method.String(), "", "the handler gave no reply")
	}
	return reply, err
}

// panicError keeps the stack of a handler's panic for the server's log; the
// peer gets the value only.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func panicked(method wire.Method, v any) error {
	return &wire.Error{Code: wire.Internal, Op: method.String(), Err: &panicError{v, debug.Stack()}}
}

// release calls Release, if there is one.
func (r *Reply) release() {
	if r.Release != nil {
		r.Release()
	}
}
