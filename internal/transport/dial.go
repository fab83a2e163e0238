package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quernfs/internal/wire"
)

// dialLimit bounds the making of a connection, handshake and opening included.
const dialLimit = 3 * time.Second

// serverRoles are the roles whose certificates a server may show.
var serverRoles = []string{"meta", "chunkd", "edge"}

// dialer makes connections for a Pool.
type dialer struct {
	cfg PoolConfig

	mu   sync.Mutex // guards what follows
	udp  *net.UDPConn
	quic *quic.Transport // on udp
}

// dial connects to ep the best way there is.
func (d *dialer) dial(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	if d.cfg.Dial != nil {
		return d.cfg.Dial(ctx, ep)
	}
	if s := d.cfg.Local.find(ep); s != nil && d.allows(InProcess) {
		return newLocalConn(s, d.cfg.Role, d.cfg.Name), nil
	}
	var unixErr error
	if d.hasSocket(ep) {
		c, err := d.dialUnix(ctx, ep)
		if err == nil {
			return c, nil
		}
		unixErr = err
	}
	if ep.GetAddr() != "" && d.allows(QUIC) {
		return d.dialAddr(ctx, ep)
	}
	if unixErr != nil {
		return nil, unixErr
	}
	return nil, wire.Errorf(wire.Unavailable, "connect", endpointName(ep), "no such server in this process, and no address to reach it by")
}

func (d *dialer) allows(k Kind) bool { return d.cfg.Force == 0 || d.cfg.Force == k }

// hasSocket tells whether ep has a socket that may be within reach.
func (d *dialer) hasSocket(ep *wire.Endpoint) bool {
	return ep.GetUnix() != "" && d.allows(Unix) && (ep.GetHost() == "" || ep.GetHost() == HostID())
}

func (d *dialer) dialUnix(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	return dialed(newFramedConn(ctx, Unix, endpointName(ep), d.cfg.Role, d.cfg.Name, &unixLink{path: ep.GetUnix()}))
}

// dialed turns a nil *framedConn into a nil Conn.
func dialed(c *framedConn, err error) (Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// dialAddr connects over QUIC. Of a server that was known by its address alone
// it asks how else it is reached, and takes the short cut if there is one.
func (d *dialer) dialAddr(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	c, err := d.dialQUIC(ctx, ep)
	if err != nil || d.cfg.Force == QUIC || ep.GetHost() != "" {
		return c, err
	}
	own, err := Call[*wire.Endpoint](ctx, c, wire.MethodDescribe, &wire.Empty{})
	if err != nil {
		c.Close()
		return nil, err
	}
	var short Conn
	if s := d.cfg.Local.find(own); s != nil {
		short = newLocalConn(s, d.cfg.Role, d.cfg.Name)
	} else if own.GetHost() != "" && d.hasSocket(own) {
		short, err = d.dialUnix(ctx, own)
	}
	if short == nil || err != nil {
		return c, nil
	}
	c.Close()
	return short, nil
}

func (d *dialer) dialQUIC(ctx context.Context, ep *wire.Endpoint) (Conn, error) {
	id, name := d.cfg.Identity, endpointName(ep)
	if id == nil {
		return nil, wire.Errorf(wire.Unavailable, "connect", name, "QUIC needs a certificate, and this process has none")
	}
	addr, err := resolve(ctx, ep.GetAddr())
	if err != nil {
		return nil, wire.Errorf(wire.Unavailable, "connect", name, "%v", err)
	}
	tr, err := d.transport()
	if err != nil {
		return nil, err
	}
	var refused error
	conn, err := tr.Dial(ctx, addr, id.clientTLS(name, serverRoles, &refused), quicConfig())
	if err != nil {
		switch ctxErr := ctx.Err(); {
		case refused != nil:
			return nil, refused
		case errors.Is(ctxErr, context.Canceled):
			return nil, waitError(ctxErr, 0, name)
		case ctxErr != nil:
			return nil, wire.Errorf(wire.Unavailable, "connect", name, "the server does not answer")
		}
		return nil, lostError(0, name, quicFault(id, err))
	}
	return dialed(newFramedConn(ctx, QUIC, name, d.cfg.Role, d.cfg.Name, &quicLink{conn, id}))
}

func resolve(ctx context.Context, addr string) (*net.UDPAddr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	return &net.UDPAddr{IP: ips[0].IP, Zone: ips[0].Zone, Port: n}, nil
}

// transport is the UDP socket to dial from: the server's, if that listens on
// all addresses, else one of the pool's own.
func (d *dialer) transport() (*quic.Transport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quic != nil {
		return d.quic, nil
	}
	if s := d.cfg.Server; s != nil && s.udp != nil && s.udp.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		select {
		case <-s.done: // closed: with its socket
		default:
			return s.quic, nil
		}
	}
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, wire.Errorf(wire.Unavailable, "connect", "", "no UDP socket to connect from: %v", err)
	}
	tr, err := newQUICTransport(udp, d.cfg.Identity)
	if err != nil {
		udp.Close()
		return nil, err
	}
	d.udp, d.quic = udp, tr
	return tr, nil
}

// close gives the socket back; the connections on it have been closed.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quic != nil {
		d.quic.Close()
		d.udp.Close()
	}
}
