package place

import "time"

// rank is a heap of the devices of a class: the soonest with a free slot is at
// the top, of these the one with the fewest slots taken, then the lower number.
// The devices themselves have their keys and positions.
type rank struct {
	devices []device // of the round
	heap    []int
}

type rankKey struct {
	at   time.Duration
	used int64
}

func (d *device) rankKey() rankKey {
	return rankKey{d.profile.fit(OneSlot, 0, 1), d.Capacity.Slots - d.profile[0].free.Slots}
}

func (k *rank) less(a, b int) bool {
	x, y := &k.devices[a].key, &k.devices[b].key
	switch {
	case x.at != y.at:
		return x.at < y.at
	case x.used != y.used:
		return x.used < y.used
	}
	return a < b
}

func (k *rank) add(dev int) {
	d := &k.devices[dev]
	d.key, d.pos = d.rankKey(), len(k.heap)
	k.heap = append(k.heap, dev)
	k.up(len(k.heap) - 1)
}

// moved puts a device where it belongs after a change of its profile.
func (k *rank) moved(dev int) {
	d := &k.devices[dev]
	next := d.rankKey()
	if next == d.key {
		return
	}
	d.key = next
	k.down(d.pos)
	k.up(d.pos)
}

func (k *rank) swap(i, j int) {
	k.heap[i], k.heap[j] = k.heap[j], k.heap[i]
	k.devices[k.heap[i]].pos, k.devices[k.heap[j]].pos = i, j
}

func (k *rank) up(i int) {
	for i > 0 && k.less(k.heap[i], k.heap[(i-1)/2]) {
		k.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (k *rank) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(k.heap); c++ {
			if k.less(k.heap[c], k.heap[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		k.swap(i, least)
		i = least
	}
}

// each calls f with the devices in order until it returns false. The heap is
// not changed: the next is always below one that was visited.
func (k *rank) each(f func(dev int) bool) {
	if len(k.heap) == 0 {
		return
	}
	var buf [16]int
	front := append(buf[:0], 0) // positions; the children of those visited
	for len(front) > 0 {
		at := 0
		for i := 1; i < len(front); i++ {
			if k.less(k.heap[front[i]], k.heap[front[at]]) {
				at = i
			}
		}
		p := front[at]
		front[at] = front[len(front)-1]
		front = front[:len(front)-1]
		if !f(k.heap[p]) {
			return
		}
		for c := 2*p + 1; c <= 2*p+2 && c < len(k.heap); c++ {
			front = append(front, c)
		}
	}
}
