package chunkd

import (
	"math"
	"time"

	"quernfs/internal/wire"
)

// inventoryPage is how many shards one heartbeat lists: about 40 KiB.
const inventoryPage = 4096

// lastShard is above every shard: the end of a round's last page.
var lastShard = &wire.ShardID{Block: math.MaxUint64, Index: math.MaxUint32}

// inventory is how far Run is in telling the leader what this server holds. It
// is lost with the process: then the round begins anew. One goroutine uses it.
type inventory struct {
	every   time.Duration // negative: never
	size    int           // of a page
	index   uint64        // the log index in the leader's last answer; 0: none yet
	began   time.Time     // the round under way, or the last one
	running bool
	after   *wire.ShardID // last one told; nil: none
	number  uint64        // of the last heartbeat
}

// report adds the next page to a heartbeat, if a round is under way or due.
// What the heartbeat says of rebuilt shards must be in it already, so that they
// are in the page too.
func (v *inventory) report(s *Store, hb *wire.Heartbeat) error {
	v.number++
	hb.Number = v.number
	// A leader that has not answered yet, or gives no index, cannot tell shards
	// that are lost from those that were committed after the page was made.
	if v.every < 0 || v.index == 0 {
		return nil
	}
	if now := s.cfg.Now(); !v.running {
		if !v.began.IsZero() && now.Sub(v.began) < v.every {
			return nil
		}
		v.began, v.running, v.after = now, true, nil
	}
	ids, err := s.List(v.after, v.size)
	if err != nil {
		return err
	}
	hb.InventoryAfter, hb.Inventory, hb.InventoryIndex, hb.InventoryUpto = v.after, ids, v.index, lastShard
	if len(ids) == v.size {
		hb.InventoryUpto = ids[len(ids)-1]
	}
	return nil
}

// told moves on behind the page that hb carried, unless the leader wants it
// again.
func (v *inventory) told(hb *wire.Heartbeat, reply *wire.HeartbeatReply) {
	v.index = reply.GetIndex()
	if hb.GetInventoryUpto() == nil || reply.GetInventoryAgain() {
		return
	}
	v.after = hb.InventoryUpto
	v.running = v.after != lastShard
}
