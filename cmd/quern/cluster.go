package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/transport"
	"quernfs/internal/wire"
	"quernfs/meta"
)

const clusterVersion = 1

// cluster is DIR/cluster.json: what a process must know before it can talk to
// another.
type cluster struct {
	Version int    `json:"version"`
	Policy  string `json:"policy"` // of the root directory at the first start
	// Members are the metadata servers of the first start; later ones join the
	// running cluster.
	Members []member `json:"members"`
	// Nodes are the chunk servers that `quern up` runs here.
	Nodes []node `json:"chunk_servers,omitempty"`
}

type member struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // host:port (UDP)
}

type node struct {
	Name   string            `json:"name"`
	Addr   string            `json:"addr"`
	Labels map[string]string `json:"labels,omitempty"`
}

// home is a data directory in use: its path, always absolute, and what
// cluster.json says.
type home struct {
	dir string
	cluster
}

func (h *home) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}
func (h *home) runPath(file string) string { return h.path("run", file) }
func (h *home) pidPath(name string) string { return h.runPath(name + ".pid") }

// identity loads the identity of a process, and says what to do when it is not
// there.
func (h *home) identity(role, name string) (*transport.Identity, error) {
	dir := transport.IdentityDir(h.dir, role, name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no certificate for %s in %s: make one with `quern cert %s %s` where the cluster was made, and unpack it in %s",
			name, dir, role, name, h.dir)
	}
	return transport.LoadIdentity(dir)
}

// sockPath is the Unix socket of a process. The kernel limits the length of
// such a path; a socket whose place in DIR is too deep goes to the directory
// for temporary files.
func (h *home) sockPath(name string) string {
	p := h.runPath(name + ".sock")
	if len(p) <= 100 {
		return p
	}
	sum := fnv.New64a()
	sum.Write([]byte(h.dir))
	return filepath.Join(os.TempDir(), fmt.Sprintf("quern-%x-%s.sock", sum.Sum64(), name))
}

// clusterKey reads the key that metadata and chunk servers share.
func (h *home) clusterKey() ([]byte, error) {
	key, err := os.ReadFile(h.path("cluster.key"))
	if err != nil {
		return nil, fmt.Errorf("the cluster key cannot be read: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("%s has %d bytes instead of 32: restore it from another server of the cluster", h.path("cluster.key"), len(key))
	}
	return key, nil
}

// metaEndpoints says where the metadata servers are.
func (h *home) metaEndpoints() []*wire.Endpoint {
	var list []*wire.Endpoint
	for _, m := range h.Members {
		list = append(list, h.endpoint(m))
	}
	return list
}

// endpoint says how a metadata server is reached, by its Unix socket too if it
// runs on this host.
func (h *home) endpoint(m member) *wire.Endpoint {
	e := &wire.Endpoint{Addr: m.Addr, Server: m.Name}
	ip := net.ParseIP(hostOf(m.Addr))
	_, err := os.Stat(h.sockPath(m.Name))
	if h.dir != "" && (err == nil || ip != nil && ip.IsLoopback()) {
		e.Unix, e.Host = h.sockPath(m.Name), transport.HostID()
	}
	return e
}

func (h *home) member(name string) (member, bool) {
	for _, m := range h.Members {
		if m.Name == name {
			return m, true
		}
	}
	return member{}, false
}

func (h *home) node(name string) (node, bool) {
	for _, n := range h.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return node{}, false
}

// openHome reads the data directory at dir.
func openHome(dir string) (*home, error) {
	if dir == "" {
		return nil, usagef("--data DIR is needed: the data directory of the cluster")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir}
	raw, err := os.ReadFile(h.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no cluster.json: it is not a data directory of QuernFS (`quern up` or `quern init` makes one)", dir)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &h.cluster); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from another host of the cluster", h.path("cluster.json"), err)
	}
	if h.Version != clusterVersion {
		return nil, fmt.Errorf("%s is of version %d, and this quern knows version %d: use the quern that made it", h.path("cluster.json"), h.Version, clusterVersion)
	}
	if len(h.Members) == 0 {
		return nil, fmt.Errorf("%s names no metadata server: restore it from another host of the cluster", h.path("cluster.json"))
	}
	return h, nil
}

// isHome: dir was made by initHome.
func isHome(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cluster.json"))
	return err == nil
}

// save writes cluster.json so that it is either the old or the new one,
// whenever the power fails.
func (h *home) save() error {
	raw, err := json.MarshalIndent(&h.cluster, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(h.path("cluster.json"), append(raw, '\n'), 0o644)
}

// writeDurably replaces a file, all or nothing, and makes it durable.
func writeDurably(path string, content []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// prepareDir makes a new data directory, or clears one whose making was cut
// short. It refuses a directory that holds anything else.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "lock" || name == "run" || name == "quern.yaml":
		case name == "pki" || name == "cluster.key" || name == "cluster.json.new" || strings.HasPrefix(name, beginPrefix):
			// Made before cluster.json, by an attempt that ended too soon;
			// nothing can have been stored under them.
		case strings.HasPrefix(name, "meta-") || strings.HasPrefix(name, "chunkd-"):
			return fmt.Errorf("%s holds %s but no cluster.json: restore cluster.json, cluster.key and pki from a copy, or name another directory", dir, name)
		default:
			return fmt.Errorf("%s is not empty (%s) and is no data directory of QuernFS: name a new or an empty one", dir, name)
		}
	}
	for _, e := range entries {
		if name := e.Name(); slices.Contains([]string{"pki", "cluster.key", "cluster.json.new"}, name) || strings.HasPrefix(name, beginPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return os.MkdirAll(filepath.Join(dir, "run"), 0o711)
}

// initHome makes the data directory of a new cluster: authority, identities for
// the processes of c and for clients, key, and last of all cluster.json.
func initHome(dir string, c cluster) (*home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := block.ParsePolicy(c.Policy); err != nil {
		return nil, usagef("--policy %s: %w", c.Policy, err)
	}
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	h := &home{dir: dir, cluster: c}
	h.Version = clusterVersion
	ca, err := transport.CreateAuthority(transport.AuthorityDir(h.dir))
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	if err := writeDurably(h.path("cluster.key"), key, 0o600); err != nil {
		return nil, err
	}
	for _, m := range h.Members {
		if err := h.issue(ca, "meta", m.Name, hostOf(m.Addr)); err != nil {
			return nil, err
		}
	}
	for _, n := range h.Nodes {
		if err := h.issue(ca, "chunkd", n.Name, hostOf(n.Addr)); err != nil {
			return nil, err
		}
	}
	for _, role := range []string{"client", "agent"} {
		if err := h.issue(ca, role, role); err != nil {
			return nil, err
		}
	}
	if err := h.mayBegin(); err != nil {
		return nil, err
	}
	return h, h.save()
}

// beginPrefix begins the name of the file that gives a metadata server the right
// to begin the cluster, which one of them has, once. It is no part of any
// bundle: a server that comes back without its state must not have it.
const beginPrefix = "begin-"

func (h *home) beginPath(member string) string { return h.path(beginPrefix + member) }

// mayBegin gives the first metadata server the right to begin the cluster.
func (h *home) mayBegin() error {
	name := h.Members[0].Name
	return writeDurably(h.beginPath(name), []byte(name+" may begin the cluster, once. It removes this file when it has.\n"), 0o600)
}

// metadataGone: this host had all metadata servers of a filesystem, and none of
// them has its state any more.
func (h *home) metadataGone() (bool, error) {
	if len(h.Nodes) == 0 {
		return false, nil // the others are on other hosts
	}
	for _, m := range h.Members {
		if _, err := os.Stat(h.beginPath(m.Name)); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if blank, err := meta.Blank(h.path(m.Name)); !blank || err != nil {
			return false, err
		}
	}
	return true, nil
}

// setAside moves what belonged to the lost filesystem away, so that a new one
// can begin, and returns where it is.
func (h *home) setAside() (string, error) {
	aside := h.path("lost-" + time.Now().UTC().Format("20060102-150405"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	var names []string
	for _, m := range h.Members {
		names = append(names, m.Name)
	}
	for _, n := range h.Nodes {
		names = append(names, n.Name)
	}
	for _, name := range names {
		if err := os.Rename(h.path(name), filepath.Join(aside, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return aside, h.mayBegin()
}

func (h *home) issue(ca *transport.Authority, role, name string, hosts ...string) error {
	return ca.Issue(role, name, hosts, transport.IdentityDir(h.dir, role, name))
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// addNodes extends the chunk servers that run here to count.
func (h *home) addNodes(count int) error {
	if count <= len(h.Nodes) {
		return nil
	}
	ca, err := transport.LoadAuthority(transport.AuthorityDir(h.dir))
	if err != nil {
		return err
	}
	ports, err := freePorts(count - len(h.Nodes))
	if err != nil {
		return err
	}
	for _, port := range ports {
		n := localNode(len(h.Nodes)+1, port)
		if err := h.issue(ca, "chunkd", n.Name, hostOf(n.Addr)); err != nil {
			return err
		}
		h.Nodes = append(h.Nodes, n)
	}
	return h.save()
}

// localCluster describes a cluster whose processes all run on this host, each
// on a free port of the loopback interface.
func localCluster(policy string, metaServers, chunkServers int) (cluster, error) {
	ports, err := freePorts(metaServers + chunkServers)
	if err != nil {
		return cluster{}, err
	}
	c := cluster{Policy: policy}
	for i := range metaServers {
		c.Members = append(c.Members, member{Name: fmt.Sprintf("meta-%d", i+1), Addr: loopback(ports[i])})
	}
	for i := range chunkServers {
		c.Nodes = append(c.Nodes, localNode(i+1, ports[metaServers+i]))
	}
	return c, nil
}

// localNode is a chunk server of one host's cluster: a failure domain of its
// own, as if it were a disk.
func localNode(n, port int) node {
	name := fmt.Sprintf("chunkd-%d", n)
	return node{Name: name, Addr: loopback(port), Labels: map[string]string{"disk": name}}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
