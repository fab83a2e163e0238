package transport

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"quernfs/internal/wire"
)

// pki is a CA with a certificate for each role, and a foreign CA, made once.
var pki = sync.OnceValue(func() *testPKI {
	dir, err := os.MkdirTemp("", "transport-pki-")
	if err != nil {
		panic(err)
	}
	p := &testPKI{dir: dir, ids: map[string]*Identity{}}
	p.ca = must(CreateAuthority(AuthorityDir(dir)))
	p.foreign = must(CreateAuthority(AuthorityDir(filepath.Join(dir, "foreign"))))
	for _, role := range knownRoles {
		p.ids[role] = p.issue(p.ca, role, "one")
	}
	return p
})

type testPKI struct {
	dir         string
	ca, foreign *Authority
	ids         map[string]*Identity // by role
}

func (p *testPKI) issue(ca *Authority, role, name string) *Identity {
	dir, err := os.MkdirTemp(p.dir, "id-")
	if err != nil {
		panic(err)
	}
	if err := ca.Issue(role, name, []string{"localhost", "127.0.0.1"}, dir); err != nil {
		panic(err)
	}
	return must(LoadIdentity(dir))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestMain(m *testing.M) {
	if args := os.Getenv(serverEnv); args != "" {
		if err := serveTest(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	os.RemoveAll(pki().dir)
	os.Exit(code)
}

func (k Kind) String() string {
	return map[Kind]string{InProcess: "inprocess", Unix: "unix", QUIC: "quic"}[k]
}

// rig is a server and a pool that reaches it in one way only.
type rig struct {
	t      testing.TB
	kind   Kind
	mux    *Mux
	local  *Local
	server *Server
	pool   *Pool
	conf   ServerConfig
}

// newRig serves mux and makes a pool of role "client".
func newRig(t testing.TB, kind Kind, mux *Mux) *rig {
	t.Helper()
	r := &rig{t: t, kind: kind, mux: mux, local: NewLocal()}
	r.conf = ServerConfig{Mux: mux, Identity: pki().ids["meta"], Name: "server-1", Log: slog.New(slog.DiscardHandler)}
	switch kind {
	case InProcess:
		r.conf.Local = r.local
	case Unix:
		r.conf.UnixPath = filepath.Join(t.TempDir(), "s")
	case QUIC:
		r.conf.Addr = "127.0.0.1:0"
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	r.pool = r.newPool("client")
	return r
}

func (r *rig) newPool(role string) *Pool {
	p := NewPool(PoolConfig{Identity: pki().ids[role], Local: r.local, Force: r.kind})
	r.t.Cleanup(func() { p.Close() })
	return p
}

// start serves, on the same address as before.
func (r *rig) start() {
	r.t.Helper()
	s, err := NewServer(r.conf)
	if err != nil {
		r.t.Fatal(err)
	}
	r.server = s
	if r.kind == QUIC {
		r.conf.Addr = s.Endpoint().GetAddr()
	}
}

func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := r.server.Close(ctx); err != nil {
		r.t.Errorf("close server: %v", err)
	}
}

// conn gets the connection.
func (r *rig) conn() Conn {
	r.t.Helper()
	return r.connOf(r.pool)
}

func (r *rig) connOf(p *Pool) Conn {
	r.t.Helper()
	c, err := p.Get(r.ctx(), r.server.Endpoint())
	if err != nil {
		r.t.Fatal(err)
	}
	if c.Kind() != r.kind {
		r.t.Fatalf("connected by %v, want %v", c.Kind(), r.kind)
	}
	return c
}

// ctx bounds a whole test.
func (r *rig) ctx() context.Context { return testContext(r.t) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// each runs a test over every kind of connection.
func each(t *testing.T, f func(t *testing.T, kind Kind)) {
	for _, k := range []Kind{InProcess, Unix, QUIC} {
		t.Run(k.String(), func(t *testing.T) { f(t, k) })
	}
}

// wantCode fails the test unless err has code.
func wantCode(t testing.TB, err error, code wire.Code) {
	t.Helper()
	if wire.CodeOf(err) != code {
		t.Fatalf("got %v (code %d), want code %d (%v)", err, wire.CodeOf(err), code, code)
	}
}

// soon waits for a condition that another goroutine brings about.
func soon(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(2 * time.Minute):
		t.Fatalf("not within two minutes: %s", what)
	}
}

// echoMux answers queries with their session number as the answer's index, puts
// with the digest of nothing but the length, gets with the payload asked for.
func echoMux() *Mux {
	m := NewMux()
	HandleCall(m, wire.MethodQuery, nil, func(_ context.Context, p Peer, q *wire.Query) (*wire.Answer, error) {
		return &wire.Answer{Index: q.Session, Message: p.Role + ":" + p.Name}, nil
	})
	m.Handle(wire.MethodPutShard, nil, func(_ context.Context, r *Request) (Reply, error) {
		return Reply{Msg: &wire.PutShardReply{Proof: fmt.Append(nil, len(r.Payload), " ", sum(r.Payload))}}, nil
	})
	m.Handle(wire.MethodGetShard, nil, func(_ context.Context, r *Request) (Reply, error) {
		q := r.Msg.(*wire.GetShard)
		b := pattern(int(q.Off), int(q.Len))
		half := len(b) / 2
		return Reply{Msg: &wire.GetShardReply{Length: q.Len}, Payload: [][]byte{b[:half], b[half:]}}, nil
	})
	return m
}

// largest is the longest payload and message that tests move.
var largest = MaxPayload

// noise is what patterns are cut from: random, and no part like the next.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, MaxPayload+1<<20+1)
	rand.NewChaCha8([32]byte{1}).Read(b[:1<<20+1])
	for n := 1<<20 + 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
	return b
})

// pattern is n bytes that depend on their place and on seed; not to be changed.
func pattern(seed, n int) []byte {
	off := seed % (1 << 20)
	return noise()[off : off+n]
}

func sum(b []byte) uint64 { return xxhash.Sum64(b) }
