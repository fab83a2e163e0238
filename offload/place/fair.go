package place

import (
	"cmp"
	"container/heap"
	"time"
)

// fair orders tasks: it serves, again and again, the user with the least
// dominant share of the cluster, and of that user the job of the highest
// priority with the least dominant share among those (A. Ghodsi et al.,
// "Dominant resource fairness", NSDI 2011). Shares are divided by weights. A job
// that is not served ages: each time that ageing passes it rises by one priority,
// and it and its user are ahead by as much as the whole cluster's share. So
// everything is served some day.
type fair struct {
	total  Amount
	ageing time.Duration
	tasks  []Task
	taken  []bool // by index: served already
	users  userHeap
	jobs   map[uint64]*fairJob
}

type fairUser struct {
	name   string
	share  float64
	weight float64
	key    float64
	jobs   jobHeap
}

type fairJob struct {
	id       uint64
	priority int
	share    float64
	weight   float64
	age      time.Duration
	rise     int // priorities that it has risen by
	key      float64
	list     []int // tasks
	head     int
}

// newFair makes the order of tasks, given what runs. The tasks of a job come in
// the order in which they are given.
func newFair(tasks []Task, agents []Agent, ageing time.Duration, weights map[string]float64) *fair {
	f := &fair{ageing: ageing, tasks: tasks, taken: make([]bool, len(tasks))}
	users, jobs := map[string]*fairUser{}, map[uint64]*fairJob{}
	var j *fairJob
	for i := range tasks {
		t := &tasks[i]
		if j == nil || j.id != t.ID.Job { // mostly runs of one job
			if j = jobs[t.ID.Job]; j == nil {
				j = &fairJob{id: t.ID.Job, priority: t.Priority, weight: weight(t.Share), age: t.Age}
				if ageing > 0 {
					j.rise = int(t.Age / ageing)
				}
				jobs[t.ID.Job] = j
				u := users[t.User]
				if u == nil {
					u = &fairUser{name: t.User, weight: weight(weights[t.User])}
					users[t.User] = u
					f.users = append(f.users, u)
				}
				u.jobs = append(u.jobs, j)
			}
		}
		j.list = append(j.list, i)
	}
	for i := range agents {
		a := &agents[i]
		f.total = f.total.Plus(a.Capacity.host())
		for k := range a.Devices {
			f.total = f.total.Plus(a.Devices[k].Capacity.device())
		}
	}
	for i := range agents {
		for k := range agents[i].Devices {
			for _, r := range agents[i].Devices[k].Running {
				s := r.need().share(f.total)
				if u := users[r.User]; u != nil {
					u.share += s
				}
				if j := jobs[r.Job]; j != nil {
					j.share += s
				}
			}
		}
	}
	for _, u := range f.users {
		for _, j := range u.jobs {
			f.rank(j)
		}
		heap.Init(&u.jobs)
		f.rankUser(u)
	}
	heap.Init(&f.users)
	f.jobs = jobs
	return f
}

func weight(w float64) float64 {
	if w <= 0 {
		return 1
	}
	return w
}

func (f *fair) rank(j *fairJob) { j.key = j.share/j.weight - f.ahead(j) }

func (f *fair) rankUser(u *fairUser) { u.key = u.share/u.weight - f.ahead(u.jobs[0]) }

// ahead is by how much of the cluster's share a job is preferred for its age.
func (f *fair) ahead(j *fairJob) float64 {
	if f.ageing <= 0 {
		return 0
	}
	return float64(j.age) / float64(f.ageing)
}

// next serves a task: its index, and how many of its job are left; ok is false
// when there are none.
func (f *fair) next() (task, left int, ok bool) {
	for len(f.users) > 0 {
		u := f.users[0]
		j := u.jobs[0]
		task = j.list[j.head]
		served := !f.taken[task]
		if j.head++; served {
			f.taken[task] = true
			need := OneSlot
			if alts := f.tasks[task].Alternatives; len(alts) > 0 {
				need = alts[0].need()
			}
			s := need.share(f.total)
			j.share, u.share, j.age, j.rise = j.share+s, u.share+s, 0, 0
		}
		left = len(j.list) - j.head
		if left > 0 {
			f.rank(j)
			heap.Fix(&u.jobs, 0)
		} else {
			heap.Pop(&u.jobs)
		}
		if len(u.jobs) > 0 {
			f.rankUser(u)
			heap.Fix(&f.users, 0)
		} else {
			heap.Pop(&f.users)
		}
		if served {
			return task, left, true
		}
	}
	return 0, 0, false
}

type userHeap []*fairUser

func (h userHeap) Len() int      { return len(h) }
func (h userHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h userHeap) Less(i, k int) bool {
	return cmp.Or(cmp.Compare(h[i].key, h[k].key), cmp.Compare(h[i].jobs[0].id, h[k].jobs[0].id)) < 0
}
func (h *userHeap) Push(x any) { *h = append(*h, x.(*fairUser)) }
func (h *userHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

type jobHeap []*fairJob

func (h jobHeap) Len() int      { return len(h) }
func (h jobHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h jobHeap) Less(i, k int) bool {
	return cmp.Or(cmp.Compare(h[k].priority+h[k].rise, h[i].priority+h[i].rise), cmp.Compare(h[i].key, h[k].key), cmp.Compare(h[i].id, h[k].id)) < 0
}
func (h *jobHeap) Push(x any) { *h = append(*h, x.(*fairJob)) }
func (h *jobHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// peek returns up to n further tasks of a job, in order, without serving them.
func (f *fair) peek(job uint64, n int) (tasks []int) {
	j := f.jobs[job]
	for k := j.head; k < len(j.list) && len(tasks) < n; k++ {
		if !f.taken[j.list[k]] {
			tasks = append(tasks, j.list[k])
		}
	}
	return tasks
}
