package transport

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"quernfs/internal/wire"
)

// serverEnv makes the test binary a server: "addr socket identity-directory".
const serverEnv = "QUERN_TRANSPORT_TEST_SERVER"

// serveTest is the main of that server; it ends with its standard input.
func serveTest(args string) error {
	f := strings.Split(args, " ")
	id, err := LoadIdentity(f[2])
	if err != nil {
		return err
	}
	m, _, _ := waitingMux()
	s, err := NewServer(ServerConfig{Mux: m, Identity: id, Name: "server-1", Addr: f[0], UnixPath: f[1]})
	if err != nil {
		return err
	}
	b, err := protojson.Marshal(s.Endpoint())
	if err != nil {
		return err
	}
	fmt.Println(string(b))
	bufio.NewReader(os.Stdin).ReadString('\n')
	return nil
}

// process is a server in a process of its own.
type process struct {
	cmd      *exec.Cmd
	endpoint *wire.Endpoint
}

func startProcess(t *testing.T, addr, socket, identity string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+addr+" "+socket+" "+identity)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, endpoint: new(wire.Endpoint)}
	t.Cleanup(func() {
		stdin.Close()
		p.kill()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal([]byte(line), p.endpoint); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// wires runs a test over the kinds of connection that join processes.
func wires(t *testing.T, f func(t *testing.T, kind Kind)) {
	for _, k := range []Kind{Unix, QUIC} {
		t.Run(k.String(), func(t *testing.T) { f(t, k) })
	}
}

func processPlace(t *testing.T) (socket, identity string) {
	identity = t.TempDir()
	if err := pki().ca.Issue("chunkd", "one", nil, identity); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(t.TempDir(), "s"), identity
}

// The calls in flight at a peer that is killed fail; those over QUIC when the
// next process at the address says that it knows nothing of them, or idleLimit
// has passed. The pool then reaches the next process.
func TestKilledPeer(t *testing.T) {
	wires(t, func(t *testing.T, kind Kind) {
		socket, identity := processPlace(t)
		p := startProcess(t, "127.0.0.1:0", socket, identity)
		pool := NewPool(PoolConfig{Identity: pki().ids["client"], Force: kind})
		defer pool.Close()
		c, err := pool.Get(testContext(t), p.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		query(t, c, 1)
		ctx := testContext(t)
		stream, streamErr := c.Stream(ctx, wire.MethodSession)
		wantCode(t, streamErr, wire.Unavailable) // not served: an answer all the same
		if stream != nil {
			t.Error("a stream that is not served was opened")
		}
		var wg sync.WaitGroup
		for name, wait := range waits(kind) {
			wg.Go(func() {
				if err := wait(ctx, c); wire.CodeOf(err) != wire.Unavailable {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		// The calls are at the peer once later ones have been answered.
		for range 20 {
			query(t, c, 1)
		}
		p.kill()
		p = startProcess(t, p.endpoint.Addr, socket, identity)
		soon(t, "end of the connection", c.Done())
		wg.Wait()
		if c, err = pool.Get(testContext(t), p.endpoint); err != nil {
			t.Fatal(err)
		}
		query(t, c, 2)
	})
}

// A peer that is stopped (SIGSTOP, a dead disk below its swap) costs every call
// its deadline and no more, whatever has been queued for it; it may come back.
func TestFrozenPeer(t *testing.T) {
	wires(t, func(t *testing.T, kind Kind) {
		socket, identity := processPlace(t)
		p := startProcess(t, "127.0.0.1:0", socket, identity)
		pool := NewPool(PoolConfig{Identity: pki().ids["client"], Force: kind})
		defer pool.Close()
		c, err := pool.Get(testContext(t), p.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		query(t, c, 1)
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var status syscall.WaitStatus // all its threads have stopped when this returns
		if _, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("the peer did not stop: %v %v", status, err)
		}
		const limit = 300 * time.Millisecond
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 150 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				req := &wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Name: strings.Repeat("x", smallMessage-100)}}}
				var err error
				if i%10 == 0 {
					_, _, err = c.CallBulk(ctx, wire.MethodPutShard, &wire.PutShard{}, [][]byte{pattern(1, 1<<20)}, nil)
				} else {
					_, err = c.Call(ctx, wire.MethodMutate, req)
				}
				if wire.CodeOf(err) != wire.Timeout {
					t.Errorf("a call to a frozen peer: %v", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d > stallLimit-time.Second {
			t.Errorf("calls with %v took %v", limit, d)
		}
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		query(t, c, 2)
	})
}
