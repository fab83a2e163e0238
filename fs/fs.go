package fs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quernfs/fs/data"
	"quernfs/internal/wire"
	"quernfs/meta/client"
)

// Chunks is what fs needs of the chunk servers' client: *chunkd.Client.
type Chunks interface {
	data.Blocks
	SetNodes([]*wire.NodeStatus)
	SetCapability([]byte)
}

// metaClient is what fs needs of the metadata servers' client: *client.Client.
type metaClient interface {
	Session() uint64
	Floor() uint64
	Do(context.Context, *wire.Command) (*wire.Result, error)
	Settle(context.Context) error
	Ask(context.Context, *wire.Query) (*wire.Answer, error)
	Lock(context.Context, *wire.Lock) (*wire.LockReply, error)
	Release([]*wire.Grant)
	Close(context.Context) error
}

// Config says which cluster is mounted, and how much memory that may take.
type Config struct {
	Servers []*wire.Endpoint // of the meta servers
	Pool    client.Dialer
	Chunks  Chunks
	Name    string  // of the session, for people: the mount point
	Host    string  // default: the host's name
	Overlay Overlay // nil: none

	DirtyLimit int64         // bytes written but not yet stored; 0: 256 MiB
	CacheBytes int64         // bytes read and kept; 0: 256 MiB
	FlushAfter time.Duration // 0: 1 s
	NoAtime    bool          // access times are left alone
	MaxLeases  int           // inodes remembered beyond need; 0: 200,000
	Log        *slog.Logger
}

// opTimeout bounds every request of the kernel; flushTimeout the part of it
// that waits for data to be stored.
const (
	opTimeout    = 30 * time.Second
	flushTimeout = 28 * time.Second
)

// FS is one session with the cluster, with or without a mount in the kernel.
// All methods may be called concurrently.
type FS struct {
	cfg     Config
	log     *slog.Logger
	meta    metaClient
	data    *data.Path
	chunks  Chunks
	overlay atomic.Pointer[Overlay]

	noAtime atomic.Bool                // access times are left alone
	options atomic.Pointer[mountWatch] // nil: not mounted

	short  atomic.Bool // no chunk server has room
	lapsed atomic.Bool // the session's lease ran out: nothing believed may be used
	kern   atomic.Pointer[kernelRef]
	dirOps atomic.Int64 // operations under way that hold a directory's lock in the kernel

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	started chan struct{} // closed when meta is set

	mu     sync.RWMutex
	inodes map[uint64]*inode

	idle    idleList
	orphans orphanQueue
	statfs  statCache
	queue   queueNames

	closeOnce sync.Once
	closeErr  error
}

// kernelRef makes an interface fit for an atomic.Pointer.
type kernelRef struct{ kernel }

// New opens a session. It fails when no metadata server can be reached within
// the client's time-out.
func New(ctx context.Context, cfg Config) (*FS, error) {
	if cfg.Chunks == nil {
		return nil, wire.Errorf(wire.Invalid, "open filesystem", cfg.Name, "no client for chunk servers is given")
	}
	fs := build(cfg)
	c, err := client.Open(ctx, client.Config{
		Servers: cfg.Servers, Pool: cfg.Pool, Name: cfg.Name, Host: cfg.Host, Holder: &holder{fs}, CallTimeout: opTimeout, Log: fs.log,
	})
	if err != nil {
		fs.cancel()
		return nil, errors.Join(err, fs.data.Close(ctx)) // which holds nothing
	}
	fs.start(c)
	return fs, nil
}

// build makes an FS that is not yet connected.
func build(cfg Config) *FS {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxLeases <= 0 {
		cfg.MaxLeases = 200_000
	}
	fs := &FS{cfg: cfg, log: cfg.Log, chunks: cfg.Chunks, inodes: map[uint64]*inode{}, started: make(chan struct{})}
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	fs.orphans.wake = make(chan struct{}, 1)
	fs.noAtime.Store(cfg.NoAtime)
	if cfg.Overlay != nil {
		fs.SetOverlay(cfg.Overlay)
	}
	fs.data = data.New(data.Config{
		DirtyLimit: cfg.DirtyLimit, CacheBytes: cfg.CacheBytes, FlushAfter: cfg.FlushAfter,
		FlushTimeout: flushTimeout, Committed: fs.committed, Log: cfg.Log,
	}, dataMeta{fs}, cfg.Chunks)
	return fs
}

// start connects fs to its client. The client's callbacks may come before.
func (fs *FS) start(m metaClient) {
	fs.meta = m
	close(fs.started)
	fs.wg.Add(2)
	go func() { defer fs.wg.Done(); fs.trim() }()
	go func() { defer fs.wg.Done(); fs.releaseOrphans() }()
}

// SetOverlay sets the overlay, once, before the first Mount: an overlay may
// need the FS that it lies over.
func (fs *FS) SetOverlay(o Overlay) { fs.overlay.Store(&o) }

func (fs *FS) over() Overlay {
	if p := fs.overlay.Load(); p != nil {
		return *p
	}
	return nil
}

// Session is the id of the session at meta.
func (fs *FS) Session() uint64 { return fs.meta.Session() }

// Sync makes everything written so far durable.
func (fs *FS) Sync(ctx context.Context) error { return fs.data.Flush(ctx) }

// Close flushes, gives up the session and waits for all goroutines. A mount
// must have been unmounted before. It may be called twice.
func (fs *FS) Close(ctx context.Context) error {
	fs.closeOnce.Do(func() {
		err := fs.data.Close(ctx)
		fs.orphans.flush(ctx, fs)
		fs.cancel()
		fs.wg.Wait()
		fs.closeErr = errors.Join(err, fs.meta.Close(ctx))
	})
	return fs.closeErr
}

// inode returns the object of an inode number, made on first use.
func (fs *FS) inode(ino uint64) *inode {
	fs.mu.RLock()
	in := fs.inodes[ino]
	fs.mu.RUnlock()
	if in != nil {
		return in
	}
	fs.mu.Lock()
	in = fs.inodes[ino]
	if in != nil {
		fs.mu.Unlock()
		return in
	}
	in = &inode{ino: ino, fs: fs, wake: make(chan struct{}), ops: map[*op]struct{}{}, queued: true, idleSince: time.Now()}
	fs.inodes[ino] = in
	fs.mu.Unlock()
	fs.idle.add(in) // until it turns out to be in use
	return in
}

// peek returns the object of an inode number if there is one.
func (fs *FS) peek(ino uint64) *inode {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.inodes[ino]
}

// all returns every object there is.
func (fs *FS) all() []*inode {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	list := make([]*inode, 0, len(fs.inodes))
	for _, in := range fs.inodes {
		list = append(list, in)
	}
	return list
}

func (fs *FS) now() int64 { return time.Now().UnixNano() }

// spawn runs f on a goroutine that Close waits for.
func (fs *FS) spawn(f func()) {
	fs.wg.Add(1)
	go func() { defer fs.wg.Done(); f() }()
}

// grantOf finds the grant for ino.
func grantOf(grants []*wire.Grant, ino uint64) *wire.Grant {
	for _, g := range grants {
		if g.Ino == ino {
			return g
		}
	}
	return nil
}

// root is who asks when no process does.
var rootCred = &wire.Cred{}

// dataMeta is fs's client as fs/data needs it.
type dataMeta struct{ fs *FS }

func (m dataMeta) Allocate(ctx context.Context, q *wire.Allocate) (*wire.AllocateAnswer, error) {
	a, err := m.fs.meta.Ask(ctx, &wire.Query{Op: &wire.Query_Allocate{Allocate: q}})
	if err != nil {
		return nil, err
	}
	return a.GetAllocate(), nil
}

func (m dataMeta) Extents(ctx context.Context, q *wire.GetExtents) (*wire.ExtentsAnswer, error) {
	a, err := m.fs.meta.Ask(ctx, &wire.Query{Op: &wire.Query_GetExtents{GetExtents: q}})
	if err != nil {
		return nil, err
	}
	return a.GetExtents(), nil
}

func (m dataMeta) Commit(ctx context.Context, c *wire.Commit) (*wire.Result, error) {
	r, err := m.fs.meta.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_Commit{Commit: c}})
	for _, g := range r.GetGrants() {
		// The leases are held already, and from now on known to meta by these ids.
		if in := m.fs.peek(g.Ino); in != nil {
			in.mu.Lock()
			in.admit(g)
			in.mu.Unlock()
		}
	}
	return r, err
}
