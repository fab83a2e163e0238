package state

import (
	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// putNode makes or replaces the record of a node. Names are unique.
func (t *tx) putNode(op *wire.PutNode) *wire.Result {
	if op.Node == nil || op.Node.Name == "" {
		return failf(wire.Invalid, "a node needs a name")
	}
	n := proto.Clone(op.Node).(*wire.Node)
	named := t.nodeNamed(n.Name)
	switch {
	case n.Id == 0 && named != nil:
		n.Id = named.Id
	case n.Id == 0:
		n.Id = uint32(t.take(nextNode, 1))
	case uint64(n.Id) >= t.counts[nextNode]:
		return failf(wire.NotFound, "there is no node %d", n.Id)
	case named != nil && named.Id != n.Id:
		return failf(wire.Exists, "%s is the name of node %d", n.Name, named.Id)
	}
	t.set(nodeKey(nil, n.Id), n)
	return &wire.Result{Value: uint64(n.Id)}
}

// nodes calls each with all nodes, by id.
func (v *view) nodes(each func(*wire.Node) bool) {
	v.prefix([]byte{kNode}, func(key, value []byte) bool {
		n := new(wire.Node)
		return v.decode(key, value, n) && each(n)
	})
}

func (v *view) nodeNamed(name string) (found *wire.Node) {
	v.nodes(func(n *wire.Node) bool {
		if n.Name == name {
			found = n
		}
		return found == nil
	})
	return found
}

// leaseHorizon never moves back.
func (t *tx) leaseHorizon(op *wire.LeaseHorizon) *wire.Result {
	if op.UntilNs > t.horizon() {
		t.setRaw(paramKey(nil, pHorizon), be64(nil, ordered(op.UntilNs)))
	}
	return new(wire.Result)
}

func (v *view) horizon() int64 {
	if n, ok := v.number(paramKey(nil, pHorizon)); ok {
		return unordered(n)
	}
	return 0
}
