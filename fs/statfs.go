package fs

import (
	"context"
	"sync"
	"time"

	"quernfs/internal/wire"
)

// statFor is how long an answer about free space is good enough.
const statFor = time.Second

type statCache struct {
	mu  sync.Mutex
	at  time.Time
	ans *wire.StatFSAnswer
}

// space says how much room there is.
func (fs *FS) space(ctx context.Context) (*wire.StatFSAnswer, error) {
	c := &fs.statfs
	c.mu.Lock()
	ans, at := c.ans, c.at
	c.mu.Unlock()
	if ans != nil && time.Since(at) < statFor {
		return ans, nil
	}
	a, err := fs.meta.Ask(ctx, &wire.Query{Cred: rootCred, Op: &wire.Query_StatFs{StatFs: &wire.StatFS{}}})
	if err != nil {
		return nil, err
	}
	ans = a.GetStatFs()
	c.mu.Lock()
	c.ans, c.at = ans, time.Now()
	c.mu.Unlock()
	return ans, nil
}
