package group

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// fullStore is a log that takes no entry.
type fullStore struct{ memStore }

func (fullStore) StoreLog(*raft.Log) error    { return errors.New("no space left on device") }
func (fullStore) StoreLogs([]*raft.Log) error { return errors.New("no space left on device") }

// A server that has the right to begin and is stopped between raft's two steps,
// the term and the first entry, begins when it is started again: the right is not
// used up before there is a group.
func TestBeginningCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{rnd: rand.New(rand.NewPCG(1, 7)), cut: map[int]bool{}, applied: map[uint64]entry{}}
		for i := range 3 {
			w.nodes = append(w.nodes, &node{w: w, n: i, name: fmt.Sprint("m", i+1), disk: newDisk()})
		}
		m := w.nodes[0]
		m.disk.right = true
		full := fullStore{m.disk.store}
		c := raft.DefaultConfig()
		c.LocalID = raft.ServerID(m.name)
		conf := raft.Configuration{Servers: []raft.Server{{ID: c.LocalID, Address: raft.ServerAddress(m.name)}}}
		if err := raft.BootstrapCluster(c, full, full, m.disk.snaps, &memTransport{}, conf); err == nil {
			t.Fatal("the entry was stored")
		}
		for _, m := range w.nodes {
			w.start(m)
		}
		if !w.await(20*time.Second, w.whole) {
			t.Error("the group has not begun")
		}
		if m.disk.right {
			t.Error("the right is not used up")
		}
		for _, f := range w.faults {
			t.Error(f)
		}
		for _, m := range w.nodes {
			m.stop()
		}
	})
}

// The member's id is read by raft's streams while the cluster's is learned.
func TestAdmitWhileLearning(t *testing.T) {
	d := newDisk()
	g := &Group{cfg: Config{Name: "m1", Home: d, StateCluster: func() []byte { return nil }}, rec: Record{ID: "m1/1"}}
	done := make(chan error)
	go func() { done <- g.learn(bytes.Repeat([]byte{7}, 16)) }()
	if err := g.Admit("m1/1", nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
