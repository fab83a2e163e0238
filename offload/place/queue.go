package place

import "slices"

// Queue has the tasks of one job that wait, in order, and knows which of them
// have bytes on a host: so that a round need not be given all of a large job's
// tasks to find one for a host that has become free. One goroutine at a time may
// use it.
type Queue struct {
	tasks  map[uint32]*queued
	order  []ticket // those that are not in tasks any more are gone
	gone   int      // how many of order
	byHost map[string][]ticket
	puts   uint64
}

// ticket is a task's place in a list. It is gone if the task was put again.
type ticket struct {
	n   uint32
	put uint64
}

type queued struct {
	Task
	put uint64
}

// Len is how many tasks wait.
func (q *Queue) Len() int { return len(q.tasks) }

// Has says whether a task waits.
func (q *Queue) Has(n uint32) bool { return q.tasks[n] != nil }

// Put adds a task at the end, or at the front. One that waits already is replaced
// in its place.
func (q *Queue) Put(t Task, front bool) {
	if old := q.tasks[t.ID.N]; old != nil {
		old.Task = t
		return
	}
	if q.tasks == nil {
		q.tasks, q.byHost = map[uint32]*queued{}, map[string][]ticket{}
	}
	q.puts++
	x := ticket{t.ID.N, q.puts}
	q.tasks[x.n] = &queued{t, x.put}
	add := func(list []ticket) []ticket {
		if front {
			return slices.Insert(list, 0, x)
		}
		return append(list, x)
	}
	q.order = add(q.order)
	for _, h := range t.Local {
		q.byHost[h.Host] = add(q.byHost[h.Host])
	}
}

// Take removes a task, which starts or has ended.
func (q *Queue) Take(n uint32) {
	if q.tasks[n] == nil {
		return
	}
	delete(q.tasks, n)
	if q.gone++; q.gone > 64 && q.gone > len(q.order)/2 {
		q.compact()
	}
}

// at is the task of a ticket; nil if it is gone.
func (q *Queue) at(x ticket) *queued {
	if t := q.tasks[x.n]; t != nil && t.put == x.put {
		return t
	}
	return nil
}

// compact drops what is gone.
func (q *Queue) compact() {
	gone := func(x ticket) bool { return q.at(x) == nil }
	q.order = slices.DeleteFunc(q.order, gone)
	for host, list := range q.byHost {
		if list = slices.DeleteFunc(list, gone); len(list) == 0 {
			delete(q.byHost, host)
		} else {
			q.byHost[host] = list
		}
	}
	q.gone = 0
}

// Pick appends the first most tasks, and of those that have bytes on each of
// the hosts the first each. The tasks are the queue's own.
func (q *Queue) Pick(out []*Task, most int, hosts []string, each int) []*Task {
	begin := len(out)
	for _, x := range q.order {
		if len(out)-begin >= most {
			break
		}
		if t := q.at(x); t != nil {
			out = append(out, &t.Task)
		}
	}
	if len(out)-begin == len(q.tasks) {
		return out
	}
	seen := make(map[uint32]bool, len(out)-begin)
	for _, t := range out[begin:] {
		seen[t.ID.N] = true
	}
	for _, host := range hosts {
		found, passed := 0, 0
		for _, x := range q.byHost[host] {
			t := q.at(x)
			if t == nil {
				passed++
				continue
			}
			if found++; !seen[x.n] {
				seen[x.n] = true
				out = append(out, &t.Task)
			}
			if found == each {
				break
			}
		}
		if passed > 64 { // what is gone gathers at the front
			q.byHost[host] = slices.DeleteFunc(q.byHost[host], func(x ticket) bool { return q.at(x) == nil })
		}
	}
	return out
}
