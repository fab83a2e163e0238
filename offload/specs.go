package offload

import (
	"sync"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// maxSpecs bounds how many parsed job files are kept.
const maxSpecs = 64

// specs are the job files of late, parsed. The zero value has none.
type specs struct {
	mu     sync.Mutex
	parsed map[string]*jobfile.Spec // by digest; guarded by mu
}

// parse returns the job file of a job, which nobody may change.
func (s *specs) parse(job *wire.Job) (*jobfile.Spec, error) {
	key := string(job.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if spec := s.parsed[key]; spec != nil && key != "" {
		return spec, nil
	}
	spec, err := jobfile.Parse(job.Spec)
	if err != nil || key == "" {
		return spec, err
	}
	if s.parsed == nil || len(s.parsed) >= maxSpecs {
		s.parsed = map[string]*jobfile.Spec{}
	}
	s.parsed[key] = spec
	return spec, nil
}
