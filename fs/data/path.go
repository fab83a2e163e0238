package data

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// Path is the data path of one mount. All methods may be called from many
// goroutines.
type Path struct {
	cfg     Config
	meta    Meta
	blocks  Blocks
	log     *slog.Logger
	buffers buffers
	tickets tickets
	records records
	cells   *cells
	ahead   *ahead
	stats   counters

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // every goroutine

	filesMu sync.Mutex
	files   map[uint64]*File

	mu        sync.Mutex
	closed    bool
	used      int64         // bytes of dirty data, by buffer space
	room      chan struct{} // closed and replaced when used falls
	packs     map[block.Policy]*pack
	open      map[*draft]struct{} // drafts not yet taken by an upload
	queue     [taken][]*draft     // by rank
	uploading int
	lastErr   error         // of the last failed upload, nil after a good one
	stuck     map[any]bool  // drafts and files that failed for want of space
	full      chan struct{} // closed while stuck has something
	isFull    bool
	abandoned int // calls of Abandon

	cancelSend context.CancelFunc // of the commit being sent, or nil
	sent       chan struct{}      // closed when it is not any more

	ready     []*File       // for the committer
	wake      chan struct{} // capacity 1: ready has something
	commitEnd chan struct{} // closed and replaced when a commit ends
	changed   []*File       // with a pending change that is not due, oldest first
	timer     *time.Timer   // makes the first of changed due
	timerOn   bool
}

// New returns a data path over m and b. Close ends it.
func New(cfg Config, m Meta, b Blocks) *Path {
	cfg.DirtyLimit = cmp.Or(cfg.DirtyLimit, 256<<20)
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, 256<<20)
	cfg.FlushAfter = cmp.Or(cfg.FlushAfter, time.Second)
	cfg.Uploads = cmp.Or(cfg.Uploads, 4)
	cfg.ReadAhead = cmp.Or(cfg.ReadAhead, 8)
	cfg.FlushTimeout = cmp.Or(cfg.FlushTimeout, 28*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	p := &Path{
		cfg: cfg, meta: m, blocks: b, log: cfg.Log,
		files: map[uint64]*File{},
		room:  make(chan struct{}), full: make(chan struct{}),
		packs: map[block.Policy]*pack{}, open: map[*draft]struct{}{}, stuck: map[any]bool{},
		wake: make(chan struct{}, 1), commitEnd: make(chan struct{}),
	}
	p.buffers.all = &mapped{}
	runtime.AddCleanup(p, (*mapped).cool, p.buffers.all)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.cells = newCells(cfg.CacheBytes/2, &p.buffers)
	p.ahead = newAhead(p, max(1, int(cfg.CacheBytes/2/bufferSize)))
	p.timer = time.AfterFunc(time.Hour, p.changesGrownOld)
	p.timer.Stop()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		p.commitLoop()
	}()
	return p
}

// File returns the one File of this inode number, made on first use. The inode
// matters only then: an existing File is not touched (see File.Reset).
func (p *Path) File(inode *wire.Inode) *File {
	ino := inode.GetAttr().GetIno()
	p.filesMu.Lock()
	defer p.filesMu.Unlock()
	if f := p.files[ino]; f != nil {
		f.forgotten = false
		return f
	}
	f := &File{path: p, ino: ino}
	f.adopt(inode)
	p.files[ino] = f
	return f
}

// Lookup returns the File of ino, or nil.
func (p *Path) Lookup(ino uint64) *File {
	p.filesMu.Lock()
	defer p.filesMu.Unlock()
	return p.files[ino]
}

// Forget ends the File of ino: now if it is clean, else when it becomes so. A
// call of File in between keeps it.
func (p *Path) Forget(ino uint64) {
	p.filesMu.Lock()
	f := p.files[ino]
	if f != nil {
		f.forgotten = true
	}
	p.filesMu.Unlock()
	if f != nil {
		p.forgetClean(f)
	}
}

// forgetClean ends a forgotten File that is clean.
func (p *Path) forgetClean(f *File) {
	dirty := f.Dirty()
	p.filesMu.Lock()
	defer p.filesMu.Unlock()
	if f.forgotten && !dirty && p.files[f.ino] == f {
		delete(p.files, f.ino)
	}
}

// dirtyFiles returns the Files that have something to commit.
func (p *Path) dirtyFiles() []*File {
	p.filesMu.Lock()
	all := make([]*File, 0, len(p.files))
	for _, f := range p.files {
		all = append(all, f)
	}
	p.filesMu.Unlock()
	return slices.DeleteFunc(all, func(f *File) bool { return !f.Dirty() })
}

// Flush flushes all files, within Config.FlushTimeout; it tries each, and
// returns the first error.
func (p *Path) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.FlushTimeout)
	defer cancel()
	files := p.dirtyFiles()
	p.press()
	for _, f := range files {
		f.changeDue()
	}
	var first error
	for _, f := range files {
		if err := f.Flush(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Abandon drops what is dirty in every file: the session that could have
// committed it has ended. Each file that loses something reports it once, at
// its next Flush. It returns how many files did; no commit with their data is
// sent after it has returned. The files are to be Reset before they are used.
func (p *Path) Abandon() int {
	p.mu.Lock()
	p.abandoned++
	cancel, sent := p.cancelSend, p.sent
	p.mu.Unlock()
	if cancel != nil {
		cancel()
		<-sent
	}
	files := p.dirtyFiles()
	for _, f := range files {
		f.drop(wire.Errorf(wire.NoSession, "flush", f.object(), "the session ended before the data was committed"))
	}
	return len(files)
}

// Close flushes, then ends all goroutines. What could not be flushed is lost;
// the error says so. Further writes fail with Shutdown.
func (p *Path) Close(ctx context.Context) error {
	p.mu.Lock()
	was := p.closed
	p.mu.Unlock()
	var err error
	if !was {
		err = p.Flush(ctx)
	}
	p.mu.Lock()
	p.closed = true
	p.timer.Stop()
	for d := range p.open {
		d.timer.Stop()
	}
	p.mu.Unlock()
	p.stop()
	p.wg.Wait()
	return err
}

// spawn runs fn on a goroutine that Close waits for; after Close it does not.
func (p *Path) spawn(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spawnLocked(fn)
}

func (p *Path) spawnLocked(fn func()) bool {
	if p.closed {
		return false
	}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		fn()
	}()
	return true
}

// after runs fn later, unless the path is closed then.
func (p *Path) after(d time.Duration, fn func()) {
	time.AfterFunc(d, func() { p.spawn(fn) })
}

// admit waits until n more bytes of dirty data are allowed, and counts them. until
// is when the call that writes them has waited enough; zero: it has not waited.
func (p *Path) admit(ctx context.Context, n int64, until *time.Time) error {
	var timeout <-chan time.Time
	for {
		p.mu.Lock()
		switch {
		case p.closed:
			p.mu.Unlock()
			return wire.Errorf(wire.Shutdown, "write", "", "the mount is closing")
		case p.isFull:
			p.mu.Unlock()
			return wire.Errorf(wire.NoSpace, "write", "", "no server has room")
		case p.used+n <= p.cfg.DirtyLimit || p.used == 0:
			p.used += n
			p.mu.Unlock()
			return nil
		}
		room, full, last := p.room, p.full, p.lastErr
		p.mu.Unlock()
		p.stats.stalls.Add(1)
		p.relieve()
		if timeout == nil {
			if until.IsZero() {
				*until = time.Now().Add(p.cfg.FlushTimeout)
			}
			t := time.NewTimer(time.Until(*until))
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-room:
		case <-full:
		case <-timeout:
			if last == nil {
				last = errors.New("dirty data could not be stored in time")
			}
			return &wire.Error{Code: codeOr(last, wire.Timeout), Op: "write", Err: last}
		case <-ctx.Done():
			return &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "write", Err: ctx.Err()}
		}
	}
}

// charge counts n bytes without asking; a negative n gives them back.
func (p *Path) charge(n int64) {
	p.mu.Lock()
	p.chargeLocked(n)
	p.mu.Unlock()
}

func (p *Path) chargeLocked(n int64) {
	p.used += n
	if n < 0 {
		close(p.room)
		p.room = make(chan struct{})
	}
}

// freed is told that a draft is over. d.mu is held.
func (p *Path) freed(d *draft) {
	p.mu.Lock()
	p.unlist(d)
	p.chargeLocked(-int64(d.tail))
	p.unstick(d)
	p.mu.Unlock()
}

// unlist removes a draft from the places where writers find it. p.mu is held.
func (p *Path) unlist(d *draft) {
	delete(p.open, d)
	if pk := p.packs[d.policy]; pk != nil {
		if pk.lazy == d {
			pk.lazy = nil
		}
		if pk.urgent == d {
			pk.urgent = nil
		}
	}
}

// stick records that a draft or a file could not be stored for want of space;
// until it is, or is dropped, writes are refused. p.mu is held.
func (p *Path) stick(x any) {
	p.stuck[x] = true
	if !p.isFull {
		p.isFull = true
		close(p.full)
		p.log.Warn("no space left: writes are refused until dirty data can be stored")
	}
}

// unstick takes x back. p.mu is held.
func (p *Path) unstick(x any) {
	if len(p.stuck) == 0 {
		return
	}
	delete(p.stuck, x)
	if len(p.stuck) == 0 && p.isFull {
		p.isFull = false
		p.full = make(chan struct{})
		p.log.Info("there is space again: writes are accepted")
	}
}

// changesGrownOld makes pending changes due that are old, or nearly: one commit
// carries them.
func (p *Path) changesGrownOld() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timerOn = false
	n := 0
	for n < len(p.changed) && now.Sub(p.changed[n].changedAt) >= p.cfg.FlushAfter/2 {
		p.changed[n].listed = false
		p.readyLocked(p.changed[n])
		n++
	}
	p.changed = slices.Delete(p.changed, 0, n)
	p.armTimer()
}

// armTimer sets the timer for the oldest pending change. p.mu is held.
func (p *Path) armTimer() {
	if p.timerOn || len(p.changed) == 0 || p.closed {
		return
	}
	p.timerOn = true
	p.timer.Reset(max(0, time.Until(p.changed[0].changedAt.Add(p.cfg.FlushAfter))))
}

// readyLocked gives a file to the committer. p.mu is held.
func (p *Path) readyLocked(f *File) {
	if !f.inReady {
		f.inReady = true
		p.ready = append(p.ready, f)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// codeOr is the code of err, or c where err has none of its own.
func codeOr(err error, c wire.Code) wire.Code {
	if got := wire.CodeOf(err); got != wire.Internal {
		return got
	}
	return c
}
