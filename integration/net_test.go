package integration

import (
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
)

// metaAddr is the address of the first metadata server.
func metaAddr(t *testing.T, c *cluster) string {
	t.Helper()
	var f struct {
		Members []struct{ Addr string }
	}
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(c.data, "cluster.json"))), &f); err != nil || len(f.Members) == 0 {
		t.Fatalf("cluster.json: %v", err)
	}
	return f.Members[0].Addr
}

// listenUDP takes a port.
func listenUDP(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestQUIC: a cluster of processes where even one host's connections go over
// QUIC, as between hosts.
func TestQUIC(t *testing.T) {
	c := newCluster(t, "--processes")
	c.env = []string{"QUERN_TRANSPORT=quic"}
	c.start()
	src := filepath.Join(goRoot(t), "net", "http")
	shell(t, c.mnt, "cp -a "+src+" copy && diff -r "+src+" copy")
	want := pattern(5, 9<<20)
	if err := writeSynced(filepath.Join(c.mnt, "big"), want); err != nil {
		t.Fatal(err)
	}
	// From other hosts it looks like this: addresses and a certificate only.
	addr := metaAddr(t, c)
	pki := filepath.Join(c.data, "pki", "client-client")
	mustQuern(t, "status", "--meta", addr, "--pki", pki)
	m := &extraMount{dir: c.mnt + "-far"}
	shell(t, "/", "mkdir -p "+m.dir)
	m.cmd, m.output, m.exited = c.run([]string{"mount", m.dir, "--meta", addr, "--pki", pki, "-o", "ro"}, "is mounted", 60e9)
	go func() { m.cmd.Wait(); close(m.exited) }()
	c.mounts = append(c.mounts, m)
	if got := readFile(t, filepath.Join(m.dir, "big")); got != string(want) {
		t.Error("wrong bytes over QUIC")
	}
	if out, err := tryShell(m.dir, "touch x"); err == nil {
		t.Errorf("a mount with -o ro takes a new file: %s", out)
	}
	c.kill("chunkd-4")
	if got := readFile(t, filepath.Join(m.dir, "big")); got != string(want) {
		t.Error("wrong bytes from five of six servers")
	}
}

// freePorts finds addresses of the loopback interface that nobody listens at.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		c := listenUDP(t, "127.0.0.1:0")
		defer c.Close()
		addrs = append(addrs, c.LocalAddr().String())
	}
	return addrs
}
