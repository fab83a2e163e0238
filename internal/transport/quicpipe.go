package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"quernfs/internal/wire"
)

// alpn names the protocol, with its version, in the TLS handshake.
const alpn = "quern/1"

// A dead peer is noticed after idleLimit, one that was restarted within
// pulsePeriod.
const (
	idleLimit   = 10 * time.Second
	keepAlive   = 3 * time.Second
	pulsePeriod = 1 * time.Second
)

// streamLimit is how many pipes a peer may have open on one connection.
const streamLimit = 4096

// No stream is reset but by a side that gives up on it, so one code does.
const resetCode = 1

func quicConfig() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 idleLimit,
		KeepAlivePeriod:                keepAlive,
		HandshakeIdleTimeout:           dialLimit,
		MaxIncomingStreams:             streamLimit,
		MaxIncomingUniStreams:          -1,
		InitialStreamReceiveWindow:     8 << 20,
		MaxStreamReceiveWindow:         16 << 20,
		InitialConnectionReceiveWindow: 16 << 20,
		MaxConnectionReceiveWindow:     64 << 20,
	}
}

// newQUICTransport serves and dials on one UDP socket. The reset key outlives
// the process, so that a server that was restarted tells its old peers at once;
// it comes from the private key, so that nobody else can.
func newQUICTransport(c *net.UDPConn, id *Identity) (*quic.Transport, error) {
	der, err := x509.MarshalPKCS8PrivateKey(id.cert.PrivateKey)
	if err != nil {
		return nil, pkiError(id.origin, "has a key that cannot be used: %v", err)
	}
	key := quic.StatelessResetKey(sha256.Sum256(append([]byte("quern stateless reset v1"), der...)))
	return &quic.Transport{Conn: c, StatelessResetKey: &key}, nil
}

// quicPipe is one QUIC stream.
type quicPipe struct {
	*quic.Stream
	conn *quic.Conn
}

var _ pipe = quicPipe{}

func (p quicPipe) LocalAddr() net.Addr  { return p.conn.LocalAddr() }
func (p quicPipe) RemoteAddr() net.Addr { return p.conn.RemoteAddr() }

func (p quicPipe) Close() error {
	p.CancelRead(resetCode)
	p.CancelWrite(resetCode)
	return nil
}

// urgent lets the pipe's bytes pass those of bulk calls that wait to be sent.
func (p quicPipe) urgent() { p.SetPriority(1, true) }

func (p quicPipe) finish() {
	p.Stream.Close()
	p.CancelRead(resetCode)
}

func (p quicPipe) try(b []byte) (int, error) {
	err := p.TryWriteAll(b)
	switch {
	case err == nil:
		return len(b), nil
	case errors.Is(err, quic.ErrWouldBlock):
		return 0, nil
	}
	return 0, err
}

func (p quicPipe) writeAll(bufs net.Buffers) error {
	for _, b := range bufs {
		if _, err := p.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (p quicPipe) writeFile([]byte, *os.File) error {
	return wire.Errorf(wire.Unsupported, "pass a file", p.RemoteAddr().String(), "QUIC carries no files")
}

// quicLink makes pipes on one QUIC connection.
type quicLink struct {
	conn *quic.Conn
	id   *Identity
}

func (l *quicLink) open(ctx context.Context) (pipe, error) {
	s, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return quicPipe{s, l.conn}, nil
}

func (l *quicLink) close() { l.conn.CloseWithError(0, "") }

func (l *quicLink) fault(err error) error { return quicFault(l.id, err) }

// quicFault says in one sentence why a QUIC connection failed.
func quicFault(id *Identity, err error) error {
	var t *quic.TransportError
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	var reset *quic.StatelessResetError
	var app *quic.ApplicationError
	switch {
	case errors.As(err, &t) && t.Remote && t.ErrorCode.IsCryptoError():
		switch alert := t.ErrorCode - 0x100; alert {
		case alertNoProtocol:
			return wire.Errorf(wire.Unsupported, "connect", "", "the server speaks another version of the protocol than %s", alpn)
		case alertExpired:
			return wire.Errorf(wire.Forbidden, "connect", "", "the server says that the certificate in %s has expired: issue it anew", id.origin)
		default:
			return wire.Errorf(wire.Forbidden, "connect", "", "the server refused the certificate in %s: it was not issued by the CA of the server's cluster", id.origin)
		}
	case errors.As(err, &idle), errors.As(err, &handshake):
		return wire.Errorf(wire.Unavailable, "connect", "", "the server does not answer")
	case errors.As(err, &reset):
		return wire.Errorf(wire.Unavailable, "connect", "", "the server was restarted")
	case errors.As(err, &app) && app.Remote:
		return wire.Errorf(wire.Unavailable, "connect", "", "the server closed the connection")
	}
	return err
}

// TLS alerts (RFC 8446, section 6) that have a sentence of their own.
const (
	alertExpired    = 45
	alertNoProtocol = 120
)

// serverTLS demands a certificate of the cluster's CA from whoever connects.
func (id *Identity) serverTLS() *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{id.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              id.roots,
		NextProtos:             []string{alpn},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, _, err := whoIs(cs.PeerCertificates[0])
			return err
		},
	}
}

// clientTLS accepts a server that has a certificate of the cluster's CA for one
// of roles. Its host name is not compared: see doc.go. What it refused a server
// for is kept in refused.
func (id *Identity) clientTLS(addr string, roles []string, refused *error) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{id.cert},
		NextProtos:         []string{alpn},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // in place of it: VerifyConnection
		VerifyConnection: func(cs tls.ConnectionState) error {
			*refused = id.checkServer(addr, roles, cs.PeerCertificates)
			return *refused
		},
	}
}

func (id *Identity) checkServer(addr string, roles []string, chain []*x509.Certificate) error {
	refuse := func(format string, args ...any) error {
		return wire.Errorf(wire.Forbidden, "connect", addr, format, args...)
	}
	if len(chain) == 0 {
		return refuse("the server has no certificate")
	}
	if err := id.verify(chain[0], chain[1:], x509.ExtKeyUsageServerAuth); err != nil {
		var unknown x509.UnknownAuthorityError
		var invalid x509.CertificateInvalidError
		switch {
		case errors.As(err, &unknown):
			return refuse("the server's certificate was not issued by this cluster's CA (%s): it belongs to another cluster, or one of the two certificates must be issued anew", id.origin)
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			return refuse("the server's certificate holds from %s to %s only: issue it anew, or set the clock",
				chain[0].NotBefore.Format(time.DateOnly), chain[0].NotAfter.Format(time.DateOnly))
		}
		return refuse("the server's certificate does not hold: %v", err)
	}
	role, name, err := whoIs(chain[0])
	if err != nil {
		return refuse("%v", err)
	}
	if !hasRole(roles, role) {
		return refuse("the certificate of role %q of %q does not make it a server", role, name)
	}
	return nil
}
