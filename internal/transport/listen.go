package transport

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"quernfs/internal/wire"
)

func (s *Server) listenError(object, format string, args ...any) error {
	return wire.Errorf(wire.Unavailable, "listen", object, format, args...)
}

// listenQUIC opens the UDP port.
func (s *Server) listenQUIC() error {
	id := s.cfg.Identity
	if id == nil {
		return wire.Errorf(wire.Invalid, "listen", s.cfg.Addr, "QUIC needs a certificate: give the server an identity")
	}
	addr, err := net.ResolveUDPAddr("udp", s.cfg.Addr)
	if err != nil {
		return wire.Errorf(wire.Invalid, "listen", s.cfg.Addr, "is no address to listen on: %v", err)
	}
	s.udp, err = net.ListenUDP("udp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return s.listenError(s.cfg.Addr, "the UDP port is in use: another server runs there, choose another port")
	case err != nil:
		return s.listenError(s.cfg.Addr, "%v", err)
	}
	if s.quic, err = newQUICTransport(s.udp, id); err != nil {
		s.udp.Close()
		return err
	}
	if s.listener, err = s.quic.Listen(id.serverTLS(), quicConfig()); err != nil {
		s.closeQUIC()
		return s.listenError(s.cfg.Addr, "%v", err)
	}
	s.endpoint.Addr = s.cfg.Advertise
	if s.endpoint.Addr == "" {
		s.endpoint.Addr = reachable(s.udp.LocalAddr().(*net.UDPAddr))
	}
	return nil
}

// closeQUIC cuts the connections off and gives the port back.
func (s *Server) closeQUIC() {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.CloseWithError(0, "") // so that the peer knows at once
	}
	if s.quic != nil {
		s.quic.Close()
		s.udp.Close()
	}
}

// reachable is an address at which others find a socket that listens on a: for
// a socket that listens everywhere, an address of this machine, not of the
// loopback if it has another.
func reachable(a *net.UDPAddr) string {
	ip := a.IP
	if ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1)
		addrs, _ := net.InterfaceAddrs()
		for _, x := range addrs {
			if n, ok := x.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && (n.IP.To4() != nil || a.IP.To4() == nil) {
				ip = n.IP
				break
			}
		}
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(a.Port))
}

func (s *Server) acceptQUIC() {
	for {
		conn, err := s.listener.Accept(s.ctx)
		if err != nil {
			return // the listener was closed
		}
		if !s.tracked(func() { s.serveQUIC(conn) }) {
			conn.CloseWithError(0, "")
		}
	}
}

// tracked runs f on a goroutine of the server, unless Close has begun.
func (s *Server) tracked(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.wg.Go(f)
	return true
}

// serveQUIC accepts the pipes of one connection, until it ends.
func (s *Server) serveQUIC(conn *quic.Conn) {
	role, name, err := whoIs(conn.ConnectionState().TLS.PeerCertificates[0])
	if err != nil { // serverTLS has let it through: cannot be
		conn.CloseWithError(1, err.Error())
		return
	}
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stop := context.AfterFunc(conn.Context(), cancel)
	defer stop()
	peer := Peer{Role: role, Name: name, Kind: QUIC}
	for {
		st, err := conn.AcceptStream(conn.Context())
		if err != nil {
			return
		}
		p := quicPipe{st, conn}
		s.wg.Go(func() { s.servePipe(ctx, p, peer) })
	}
}

// maxSocketPath is what fits into a sockaddr_un.
const maxSocketPath = 107

// listenUnix binds the socket, in the place of one that a dead server left.
func (s *Server) listenUnix() error {
	path := s.cfg.UnixPath
	if len(path) > maxSocketPath {
		return wire.Errorf(wire.Invalid, "listen", path, "the path of a Unix socket has at most %d bytes: use a shorter data directory", maxSocketPath)
	}
	if err := s.clearSocket(path); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return s.listenError(path, "%v", err)
	}
	s.unix = l
	// Between bind and chmod the peer's credentials guard it alone.
	if err := os.Chmod(path, 0o600); err != nil {
		return s.listenError(path, "%v", err)
	}
	s.endpoint.Unix = path
	return nil
}

func (s *Server) clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return s.listenError(path, "%v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return s.listenError(path, "is in the way and not a socket: remove it")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return s.listenError(path, "another server listens there: stop it first")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.listenError(path, "%v", err)
	}
	return nil
}

func (s *Server) acceptUnix() {
	for {
		c, err := s.unix.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Too many open files: callers wait in the backlog meanwhile.
			s.log.Warn("cannot accept on the Unix socket", "path", s.cfg.UnixPath, "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-s.streamCtx.Done():
				return
			}
		}
		if !s.tracked(func() { s.serveUnix(c) }) {
			c.Close()
		}
	}
}

// serveUnix serves one socket, if its other end is this user or root.
func (s *Server) serveUnix(c *net.UnixConn) {
	ok, err := peerIsUs(c)
	if err != nil || !ok {
		c.Close()
		s.log.Warn("refused a process of another user on the Unix socket", "path", s.cfg.UnixPath, "err", err)
		return
	}
	p, err := newUnixPipe(c)
	if err != nil {
		c.Close()
		return
	}
	s.servePipe(s.ctx, p, Peer{Kind: Unix})
}
