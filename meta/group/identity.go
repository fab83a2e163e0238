package group

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"

	"quernfs/internal/wire"
)

const clusterSize = 16 // bytes of a cluster's id

// Record is what a member keeps about itself, beside its log.
type Record struct {
	ID      string // of raft: NAME, or NAME/INCARNATION
	Cluster []byte // clusterSize bytes; empty: not known yet
}

// Home keeps the record, and the right to begin the group.
type Home interface {
	Load() (*Record, error) // nil: there is none
	Save(Record) error      // durable when it returns
	// MayBegin says whether this server has the right to begin the group;
	// UseRight takes it away for good.
	MayBegin() (bool, error)
	UseRight() error
}

const recordHead = "quern member 1\n"

// Encode is the record as a file.
func (r Record) Encode() []byte {
	return fmt.Appendf(nil, "%sid %s\ncluster %x\n", recordHead, r.ID, r.Cluster)
}

// DecodeRecord reads what Encode wrote.
func DecodeRecord(b []byte) (*Record, error) {
	text, ok := strings.CutPrefix(string(b), recordHead)
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 3 || lines[2] != "" {
		return nil, fmt.Errorf("it is not what a member of a metadata group writes")
	}
	id, ok1 := strings.CutPrefix(lines[0], "id ")
	cluster, ok2 := strings.CutPrefix(lines[1], "cluster ")
	raw, err := hex.DecodeString(cluster)
	if !ok1 || !ok2 || id == "" || err != nil || len(raw) != 0 && len(raw) != clusterSize {
		return nil, fmt.Errorf("it is not what a member of a metadata group writes")
	}
	return &Record{ID: id, Cluster: raw}, nil
}

// NameOf is the name of the member id, which is the same in all its incarnations.
func NameOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// AddrOf is where a member is reached: its address in raft without the incarnation.
func AddrOf(addr raft.ServerAddress) string {
	base, _, _ := strings.Cut(string(addr), "/")
	return base
}

// raftAddr is the address of the member id in raft. Votes are remembered by it,
// so it is another one for each incarnation.
func raftAddr(id, addr string) string {
	if _, incarnation, ok := strings.Cut(id, "/"); ok {
		return addr + "/" + incarnation
	}
	return addr
}

func newID(name string) string {
	b := make([]byte, 8)
	rand.Read(b)
	return name + "/" + hex.EncodeToString(b)
}

func newCluster() []byte {
	b := make([]byte, clusterSize)
	rand.Read(b)
	return b
}

// identify finds out, or decides, who this server is; begin says that it is to
// begin the group.
func (g *Group) identify() (begin bool, err error) {
	c := &g.cfg
	existing, err := raft.HasExistingState(c.Logs, c.Stable, c.Snapshots)
	if err != nil {
		return false, err
	}
	if term, _ := c.Stable.GetUint64([]byte("CurrentTerm")); existing && term == 0 {
		return false, errors.New("there are snapshots or entries, but raft's term and vote are gone")
	}
	kept, err := c.Home.Load()
	if err != nil {
		return false, err
	}
	rec := kept
	right, err := c.Home.MayBegin()
	if err != nil {
		return false, err
	}
	if existing && right {
		// A server that has the right has begun, or was stopped before there was an
		// entry: raft notes the term first. Then it has said nothing to anybody.
		begun, err := g.begun()
		if err != nil {
			return false, err
		}
		if !begun {
			if err := c.Stable.SetUint64([]byte("CurrentTerm"), 0); err != nil {
				return false, err
			}
			existing = false
		}
	}
	switch {
	case existing && rec == nil: // of a version that kept no record
		rec = &Record{ID: c.Name}
	case existing:
	case right:
		rec, begin = &Record{ID: c.Name, Cluster: newCluster()}, true
	case c.Alone:
		return false, wire.Errorf(wire.Corrupt, "open metadata server", c.Name, "%s", c.Lost)
	default:
		// Also where there is a record: without the log nothing says what was
		// promised under that id.
		rec = &Record{ID: newID(c.Name)}
	}
	if name := NameOf(raft.ServerID(rec.ID)); name != c.Name {
		return false, wire.Errorf(wire.Invalid, "open metadata server", c.Name, "the directory belongs to the metadata server %s", name)
	}
	if in := c.StateCluster(); len(in) > 0 {
		if len(rec.Cluster) > 0 && !bytes.Equal(in, rec.Cluster) {
			return false, wire.Errorf(wire.Corrupt, "open metadata server", c.Name, "the state is of cluster %x, the server of cluster %x", in, rec.Cluster)
		}
		rec = &Record{ID: rec.ID, Cluster: in}
	}
	g.rec = *rec
	if kept == nil || kept.ID != rec.ID || !bytes.Equal(kept.Cluster, rec.Cluster) {
		if err := c.Home.Save(*rec); err != nil {
			return false, err
		}
	}
	if existing && right {
		return false, c.Home.UseRight() // a crash came between the beginning and this
	}
	return begin, nil
}

// begun says that there is an entry, or a snapshot.
func (g *Group) begun() (bool, error) {
	last, err := g.cfg.Logs.LastIndex()
	if err != nil || last > 0 {
		return err == nil, err
	}
	all, err := g.cfg.Snapshots.List()
	return len(all) > 0, err
}

// Cluster is the id of the cluster, empty while it is not known.
func (g *Group) Cluster() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.rec.Cluster) == 0 {
		return g.cfg.StateCluster()
	}
	return g.rec.Cluster
}

// learn keeps the cluster's id once it is known.
func (g *Group) learn(cluster []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(cluster) == 0 || len(g.rec.Cluster) > 0 {
		return nil
	}
	if len(cluster) != clusterSize {
		return wire.Errorf(wire.Invalid, "raft", g.rec.ID, "a cluster's id of %d bytes: it has %d", len(cluster), clusterSize)
	}
	rec := Record{ID: g.rec.ID, Cluster: bytes.Clone(cluster)}
	if err := g.cfg.Home.Save(rec); err != nil {
		return err
	}
	g.rec.Cluster = rec.Cluster // ID is read without the lock
	return nil
}

// Admit refuses a stream of raft's messages that is meant for another member,
// or comes from another cluster. An empty target is the name: of a version
// that knew no incarnations.
func (g *Group) Admit(target string, cluster []byte) error {
	if target == "" {
		target = g.cfg.Name
	}
	if target != g.rec.ID {
		return wire.Errorf(wire.Forbidden, "raft", target, "%s runs here: it does not have the state of %s, and does not speak for it", g.rec.ID, target)
	}
	return g.sameCluster(cluster)
}

func (g *Group) sameCluster(cluster []byte) error {
	if own := g.Cluster(); len(own) > 0 && len(cluster) > 0 && !bytes.Equal(own, cluster) {
		return wire.Errorf(wire.Forbidden, "join", g.cfg.Name, "the other metadata server belongs to another filesystem (%x, this one is of %x): remove the directory of the one that is to give way", cluster, own)
	}
	return nil
}
