package state

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"quernfs/internal/wire"
)

// openJobs are the records of the jobs that have not ended, decoded. A leader's
// scheduler wants all of them many times a second, and few of them change in
// between.
type openJobs struct {
	mu   sync.Mutex
	jobs map[uint64]*wire.Job // guarded by mu; nil: nobody has asked yet
}

// Jobs returns the jobs that have not ended, by number. Nobody may change the
// records.
func (s *State) Jobs() ([]*wire.Job, error) {
	done, err := s.use()
	if err != nil {
		return nil, err
	}
	done() // it was open
	o := &s.openJobs
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.jobs == nil {
		// What Apply commits meanwhile it adds as soon as it gets mu.
		stored, err := s.storedJobs()
		if err != nil {
			return nil, err
		}
		o.jobs = make(map[uint64]*wire.Job, len(stored))
		for _, j := range stored {
			o.jobs[j.Id] = j
		}
	}
	jobs := slices.Collect(maps.Values(o.jobs))
	slices.SortFunc(jobs, func(a, b *wire.Job) int { return cmp.Compare(a.Id, b.Id) })
	return jobs, nil
}

// storedJobs is what Jobs returns, read from the database.
func (s *State) storedJobs() (jobs []*wire.Job, err error) {
	err = s.read(func(v *view) {
		v.prefix([]byte{kJob, jActive}, func(key, _ []byte) bool {
			if j := v.job(num64(key[2:])); j != nil {
				jobs = append(jobs, j)
			}
			return true
		})
	})
	return jobs, err
}

// committed takes over what a batch has put, or removed (nil). The records are not
// changed any more.
func (o *openJobs) committed(put map[uint64]*wire.Job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.jobs == nil {
		return
	}
	for id, j := range put {
		if j == nil || ended(j.State) {
			delete(o.jobs, id)
		} else {
			o.jobs[id] = j
		}
	}
}
