package state

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"quernfs/internal/wire"
)

// This file has what the leader reads for its own work: each call sees the
// state as of one applied batch. They return wire.NotFound for what is not
// there, and the database's error if it fails.

func missing(op string) error { return &wire.Error{Code: wire.NotFound, Op: op} }

// Inode returns the inode of a number.
func (s *State) Inode(ino uint64) (in *wire.Inode, err error) {
	err = s.read(func(v *view) { in = v.inode(ino) })
	if err == nil && in == nil {
		err = missing("inode")
	}
	return in, err
}

// Entry returns the entry name of a directory.
func (s *State) Entry(parent uint64, name string) (d *wire.Dentry, err error) {
	err = s.read(func(v *view) { d = v.dentry(parent, name) })
	if err == nil && d == nil {
		err = missing("entry")
	}
	return d, err
}

// Session returns the session of a number.
func (s *State) Session(id uint64) (rec *wire.Session, err error) {
	found := false
	err = s.read(func(v *view) {
		rec = new(wire.Session)
		found = v.load(sessionKey(nil, id), rec)
	})
	if err == nil && !found {
		return nil, missing("session")
	}
	return rec, err
}

// Sessions returns all sessions, by number.
func (s *State) Sessions() (all []*wire.Session, err error) {
	err = s.read(func(v *view) {
		v.prefix([]byte{kSession}, func(key, value []byte) bool {
			rec := new(wire.Session)
			if v.decode(key, value, rec) {
				all = append(all, rec)
			}
			return true
		})
	})
	return all, err
}

// Holders returns the sessions that hold the nameless inode ino open.
func (s *State) Holders(ino uint64) (sessions []uint64, err error) {
	err = s.read(func(v *view) { sessions = v.holders(ino) })
	return sessions, err
}

// Orphans calls each with every nameless inode and each session that holds it.
func (s *State) Orphans(each func(ino, session uint64) bool) error {
	return s.read(func(v *view) {
		v.prefix([]byte{kOrphan}, func(key, _ []byte) bool {
			return len(key) != 17 || each(num64(key[1:]), num64(key[9:]))
		})
	})
}

// Horizon is the time up to which leases may have been given.
func (s *State) Horizon() (ns int64, err error) {
	err = s.read(func(v *view) { ns = v.horizon() })
	return ns, err
}

// ClusterID is what Bootstrap set; wire.NotFound before it.
func (s *State) ClusterID() (id []byte, err error) {
	found := false
	err = s.read(func(v *view) {
		found = v.get(paramKey(nil, pCluster), func(b []byte) error {
			id = bytes.Clone(b)
			return nil
		})
	})
	if err == nil && !found {
		return nil, missing("cluster id")
	}
	return id, err
}

// Nodes returns all nodes, by id.
func (s *State) Nodes() (all []*wire.Node, err error) {
	err = s.read(func(v *view) {
		v.nodes(func(n *wire.Node) bool {
			all = append(all, n)
			return true
		})
	})
	return all, err
}

// NodeByName returns the node of a name.
func (s *State) NodeByName(name string) (n *wire.Node, err error) {
	err = s.read(func(v *view) { n = v.nodeNamed(name) })
	if err == nil && n == nil {
		err = missing("node")
	}
	return n, err
}

// Block returns the record of a block, in use or freed.
func (s *State) Block(id uint64) (b *wire.Block, err error) {
	err = s.read(func(v *view) { b = v.block(id) })
	if err == nil && b == nil {
		err = missing("block")
	}
	return b, err
}

// Floor is the id below which no new block can be committed any more.
func (s *State) Floor() (floor uint64, err error) {
	err = s.read(func(v *view) { floor = v.floor() })
	return floor, err
}

func (v *view) floor() uint64 {
	v.key = counterKey(v.key[:0], ticketFloor)
	n, _ := v.number(v.key)
	return n
}

// Expired returns the floor, and the records of those blocks among ids that are
// below it, nil for one that has none: such a block can never get one.
func (s *State) Expired(ids []uint64) (floor uint64, blocks map[uint64]*wire.Block, err error) {
	blocks = map[uint64]*wire.Block{}
	err = s.read(func(v *view) {
		floor = v.floor()
		for _, id := range ids {
			if _, seen := blocks[id]; id < floor && !seen {
				blocks[id] = v.block(id)
			}
		}
	})
	return floor, blocks, err
}

// Dead returns up to limit blocks that were freed before the time beforeNs,
// the longest dead first: those to delete and then to purge.
func (s *State) Dead(beforeNs int64, limit int) (blocks []*wire.Block, err error) {
	err = s.read(func(v *view) {
		v.scan([]byte{kFreed}, freedKey(nil, beforeNs, 0), func(key, _ []byte) bool {
			if len(blocks) >= limit || len(key) != 17 {
				return false
			}
			if b := v.block(num64(key[9:])); b != nil {
				blocks = append(blocks, b)
			}
			return true
		})
	})
	return blocks, err
}

// Held is a shard that a server holds.
type Held struct {
	Block uint64
	Index uint32
	Freed bool   // nothing refers to the block any more
	Made  uint64 // log index of the block's commit
}

// OnServer returns up to limit shards that server holds, of blocks above after,
// by block. Freed blocks are among them until they are purged.
func (s *State) OnServer(server uint32, after uint64, limit int) (held []Held, err error) {
	err = s.read(func(v *view) {
		v.held(server, after, func(b *wire.Block) bool {
			if len(held) >= limit {
				return false
			}
			held = append(held, Held{b.Id, uint32(holds(b, server)), b.FreedIndex != 0, b.MadeIndex})
			return true
		})
	})
	return held, err
}

// Degraded returns up to limit blocks above after that are in use and miss a
// shard.
func (s *State) Degraded(after uint64, limit int) (blocks []*wire.Block, err error) {
	err = s.read(func(v *view) {
		v.held(0, after, func(b *wire.Block) bool {
			if len(blocks) >= limit {
				return false
			}
			blocks = append(blocks, b)
			return true
		})
	})
	return blocks, err
}

// held calls each with the blocks above from in the index of server.
func (v *view) held(server uint32, from uint64, each func(*wire.Block) bool) {
	if from == 1<<64-1 {
		return
	}
	v.scan(heldKey(nil, server, from+1), after(be32([]byte{kHeld}, server)), func(key, _ []byte) bool {
		if len(key) != 13 {
			v.fail(corrupt(key, errShortKey))
			return false
		}
		b := v.block(num64(key[5:]))
		if b == nil {
			v.fail(corrupt(key, errLost))
			return false
		}
		return each(b)
	})
}

// Blocks calls each with all block records above after, by id. It sees one
// moment of the state, and must end soon.
func (s *State) Blocks(after uint64, each func(*wire.Block) bool) error {
	if after == 1<<64-1 {
		return nil
	}
	return s.read(func(v *view) {
		v.scan(blockKey(nil, after+1), []byte{kBlock + 1}, func(key, value []byte) bool {
			b := new(wire.Block)
			return v.decode(key, value, b) && each(b)
		})
	})
}

// Counts are the totals that the state keeps.
type Counts struct {
	Inodes   uint64
	Blocks   uint64 // records, freed ones included
	Live     uint64 // bytes that extents refer to
	Degraded uint64 // blocks in use that miss a shard
	Freed    uint64 // blocks in the delayed-deletion queue

	NextIno, NextBlock uint64 // numbers below have been given out
	Floor              uint64 // see Floor
}

// Counts returns the totals.
func (s *State) Counts() (c Counts, err error) {
	err = s.read(func(v *view) {
		n := v.counters()
		c = Counts{
			Inodes: n[countInodes], Blocks: n[countBlocks], Live: n[countLive],
			Degraded: n[countDegraded], Freed: n[countFreed],
			NextIno: n[nextIno], NextBlock: n[nextBlock], Floor: n[ticketFloor],
		}
	})
	return c, err
}

// Policy is the default policy of the cluster: that of the root directory.
func (s *State) Policy() (*wire.Policy, error) {
	root, err := s.Inode(wire.RootIno)
	if err != nil {
		return nil, err
	}
	return root.Policy, nil
}

// Job returns one job.
func (s *State) Job(id uint64) (j *wire.Job, err error) {
	err = s.read(func(v *view) { j = v.job(id) })
	if err == nil && j == nil {
		err = missing("job")
	}
	return j, err
}

// Task returns one task of a job.
func (s *State) Task(job uint64, n uint32) (task *wire.Task, err error) {
	err = s.read(func(v *view) {
		j := v.job(job)
		if j == nil {
			return
		}
		if task = v.task(j, n); task != nil && n < j.Array {
			task.Inputs = v.template(j).Inputs
		}
	})
	if err == nil && task == nil {
		err = missing("task")
	}
	return task, err
}

// Tasks returns the tasks of a job that are in one of states, all of them if
// none is named, by number.
func (s *State) Tasks(job uint64, states ...string) (tasks []*wire.Task, err error) {
	err = s.read(func(v *view) {
		j := v.job(job)
		if j == nil {
			return
		}
		v.tasks(j, 0, func(task *wire.Task) bool {
			if len(states) == 0 || slices.Contains(states, task.State) {
				tasks = append(tasks, task)
			}
			return true
		})
	})
	return tasks, err
}

// Digest is the SHA-256 of all keys and values. Replicas that have applied the
// same entries agree on it.
func (s *State) Digest() (sum [32]byte, err error) {
	h := sha256.New()
	err = s.read(func(v *view) {
		var length []byte
		v.scan(nil, nil, func(key, value []byte) bool {
			length = be32(be32(length[:0], uint32(len(key))), uint32(len(value)))
			h.Write(length)
			h.Write(key)
			h.Write(value)
			return true
		})
	})
	h.Sum(sum[:0])
	return sum, err
}
