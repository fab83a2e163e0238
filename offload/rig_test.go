package offload

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/meta/state"
)

// The test binary is the worker, too.
func TestMain(m *testing.M) {
	if os.Getenv("QUERN_TEST_ROLE") == "worker" {
		os.Exit(WorkerMain(os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "quern-offload-test-")
	if err != nil {
		panic(err)
	}
	agentDir = dir
	if testWorker, err = workerCommand(dir); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// agentDir is shared by all agents, so that a module is compiled once.
var agentDir string

// testWorker is the command of their workers.
var testWorker []string

// rig is a cluster of one: the real state machine without Raft, files whose
// content is in memory, and a scheduler. It is Meta, Files and View.
type rig struct {
	t       *testing.T
	changed chan struct{}

	mu      sync.Mutex
	st      *state.State
	index   uint64
	content map[uint64][]byte
	nodes   []*wire.NodeStatus
	sched   *Scheduler
	fail    func(*wire.Command) error // asked before each Do
	deny    func(*wire.Query) error   // asked before each query of the scheduler's view; guarded by mu
	seen    func(*wire.Command)       // told of each command; set before anything runs
	syncs   int
	openErr map[uint64]error
	layout  map[uint64][]Piece
	agents  []*Agent
}

// busy is how many tasks the agents run.
func (r *rig) busy() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.agents {
		n += a.Busy()
	}
	return n
}

func newRig(t *testing.T) *rig {
	t.Helper()
	st, err := state.Open(state.Config{Dir: t.TempDir(), Key: make([]byte, 32), CacheBytes: 1 << 20, MemTableSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, st: st, changed: make(chan struct{}, 1), content: map[uint64][]byte{}, openErr: map[uint64]error{}, layout: map[uint64][]Piece{}}
	t.Cleanup(func() { st.Close() })
	r.must(&wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{
		Policy: &wire.Policy{K: 1, BlockSize: 4 << 20, InlineMax: 2 << 10}, RootMode: 0o755, ClusterId: make([]byte, 16)}}})
	return r
}

// lead runs a scheduler until the test, or the returned function, ends it.
func (r *rig) lead(cfg SchedulerConfig) (stop func()) {
	s := NewScheduler(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.mu.Lock()
	r.sched = s
	r.mu.Unlock()
	go func() {
		defer close(done)
		s.Lead(ctx, r)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) apply(cmd *wire.Command) (*wire.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen != nil {
		r.seen(cmd)
	}
	cmd = proto.Clone(cmd).(*wire.Command)
	cmd.TimeNs = time.Now().UnixNano()
	if cmd.Cred == nil {
		cmd.Cred = rootCred
	}
	r.index++
	res, err := r.st.Apply([]state.Entry{{Index: r.index, Term: 1, Command: cmd}})
	if err != nil {
		return nil, err
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	if c := wire.Code(res[0].Code); c != wire.OK {
		return res[0], wire.Errorf(c, "apply", "", "%s", res[0].Message)
	}
	return res[0], nil
}

func (r *rig) must(cmd *wire.Command) *wire.Result {
	r.t.Helper()
	res, err := r.apply(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// Meta.

func (r *rig) Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail != nil {
		if err := fail(cmd); err != nil {
			return nil, err
		}
	}
	return r.apply(cmd)
}

func (r *rig) Ask(ctx context.Context, q *wire.Query) (*wire.Answer, error) {
	if _, ok := q.Op.(*wire.Query_ListNodes); ok {
		return &wire.Answer{Op: &wire.Answer_Nodes{Nodes: &wire.NodesAnswer{Nodes: r.Nodes()}}}, nil
	}
	if op, ok := q.Op.(*wire.Query_ExplainJob); ok {
		r.mu.Lock()
		s := r.sched
		r.mu.Unlock()
		if s == nil {
			return nil, wire.Errorf(wire.Unavailable, "explain", "", "nobody leads")
		}
		a, err := s.Explain(ctx, op.ExplainJob)
		return &wire.Answer{Op: &wire.Answer_Jobs{Jobs: a}}, err
	}
	a, err := r.st.Query(q)
	if err == nil && a.Code != 0 {
		err = wire.Errorf(wire.Code(a.Code), "query", "", "%s", a.Message)
	}
	return a, err
}

func (r *rig) Call(ctx context.Context, m wire.Method, req proto.Message) (proto.Message, error) {
	r.mu.Lock()
	s := r.sched
	r.mu.Unlock()
	if m != wire.MethodPoll || s == nil {
		return nil, wire.Errorf(wire.Unavailable, "call", m.String(), "nobody leads")
	}
	return s.Poll(ctx, req.(*wire.Poll))
}

// View.

func (r *rig) Propose(_ context.Context, cmd *wire.Command) (*wire.Result, error) {
	return r.apply(cmd)
}
func (r *rig) Query(q *wire.Query) (*wire.Answer, error) {
	r.mu.Lock()
	deny := r.deny
	r.mu.Unlock()
	if deny != nil {
		if err := deny(q); err != nil {
			return nil, err
		}
	}
	return r.st.Query(q)
}
func (r *rig) Jobs() ([]*wire.Job, error) { return r.st.Jobs() }
func (r *rig) Changed() <-chan struct{}   { return r.changed }
func (r *rig) Nodes() []*wire.NodeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.nodes)
	for i, n := range out {
		for _, a := range r.agents {
			if a.cfg.Node == n.Node.Id { // as a heartbeat would tell
				out[i] = proto.CloneOf(n)
				out[i].Devices = a.Devices()
			}
		}
	}
	return out
}

// addNode registers a node.
func (r *rig) addNode(kind, name, host string) uint32 {
	r.t.Helper()
	n := &wire.Node{Name: name, Kind: kind, State: "up", Endpoint: &wire.Endpoint{Host: host}, Runtimes: []string{"wasm"}}
	n.Id = uint32(r.must(&wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: n}}}).Value)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = append(r.nodes, &wire.NodeStatus{Node: n, Alive: true, Slots: 2, Speed: 105})
	return n.Id
}

// Files.

func (r *rig) Stat(ctx context.Context, path string) (*wire.Inode, error) {
	ino := wire.RootIno
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		a, err := r.Ask(ctx, &wire.Query{Cred: rootCred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: ino, Name: name}}})
		if err != nil {
			return nil, err
		}
		ino = a.GetInode().GetInode().GetAttr().GetIno()
	}
	return r.inode(ino)
}

func (r *rig) inode(ino uint64) (*wire.Inode, error) {
	a, err := r.Ask(context.Background(), &wire.Query{Cred: rootCred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: ino}}})
	return a.GetInode().GetInode(), err
}

func (r *rig) ReadDir(ctx context.Context, path string) ([]*wire.DirEntry, error) {
	in, err := r.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	return r.ReadDirInode(ctx, in.Attr.Ino)
}

func (r *rig) ReadDirInode(ctx context.Context, ino uint64) ([]*wire.DirEntry, error) {
	a, err := r.Ask(ctx, &wire.Query{Cred: rootCred, Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: ino, Limit: 1 << 16}}})
	return a.GetDir().GetEntries(), err
}

func (r *rig) OpenInode(_ context.Context, ino uint64) (*rigFile, error) {
	r.mu.Lock()
	err := r.openErr[ino]
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if _, err := r.inode(ino); err != nil {
		return nil, err
	}
	return &rigFile{r, ino}, nil
}

func (r *rig) make(dir uint64, name string, mode uint32) (*wire.Inode, error) {
	res, err := r.apply(&wire.Command{Op: &wire.Command_Create{Create: &wire.Create{Parent: dir, Name: name, Mode: mode, Exclusive: true}}})
	return res.GetInode(), err
}

func (r *rig) Create(_ context.Context, dir uint64, name string, mode uint32) (*rigFile, error) {
	in, err := r.make(dir, name, typeReg|mode)
	if err != nil {
		return nil, err
	}
	return &rigFile{r, in.Attr.Ino}, nil
}

func (r *rig) Mkdir(_ context.Context, dir uint64, name string, mode uint32) (*wire.Inode, error) {
	return r.make(dir, name, typeDir|mode)
}

func (r *rig) Remove(_ context.Context, dir uint64, name string, rmdir bool) error {
	_, err := r.apply(&wire.Command{Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: dir, Name: name, Dir: rmdir}}})
	return err
}

func (r *rig) Where(_ context.Context, ino uint64) (map[uint32]uint64, error) {
	in, err := r.inode(ino)
	return map[uint32]uint64{1: in.GetAttr().GetSize()}, err
}

// Layout has each file on chunk server 1, unless the test says otherwise.
func (r *rig) Layout(_ context.Context, ino uint64) ([]Piece, error) {
	r.mu.Lock()
	pieces := r.layout[ino]
	r.mu.Unlock()
	if pieces != nil {
		return pieces, nil
	}
	in, err := r.inode(ino)
	return []Piece{{Len: in.GetAttr().GetSize(), Block: ino, Servers: []uint32{1}}}, err
}

func (r *rig) Sync(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syncs++
	return nil
}

type rigFile struct {
	r   *rig
	ino uint64
}

func (f *rigFile) Inode() *wire.Inode {
	in, _ := f.r.inode(f.ino)
	return in
}

func (f *rigFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	data := f.r.data(f.ino)
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// data is what a file holds; small outputs lie in their inodes. mu is held.
func (r *rig) data(ino uint64) []byte {
	if b, ok := r.content[ino]; ok {
		return b
	}
	in, err := r.st.Inode(ino)
	if err != nil {
		return nil
	}
	return in.Inline
}

func (f *rigFile) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	data := f.r.content[f.ino]
	if grow := off + int64(len(p)) - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	f.r.content[f.ino] = data
	return copy(data[off:], p), nil
}

func (f *rigFile) Flush(context.Context) error {
	f.r.mu.Lock()
	size := len(f.r.content[f.ino])
	f.r.mu.Unlock()
	_, err := f.r.apply(&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{
		Ino: f.ino, Mask: wire.SetSize | wire.SetMtime, Size: uint64(size), MtimeNs: time.Now().UnixNano()}}})
	return err
}

func (f *rigFile) Close() error { return nil }

// write puts a file at path, with the directories above it.
func (r *rig) write(path, data string) uint64 {
	r.t.Helper()
	ctx := context.Background()
	parts := strings.Split(strings.Trim(path, "/"), "/")
	dir := wire.RootIno
	at := ""
	for _, p := range parts[:len(parts)-1] {
		at += "/" + p
		in, err := r.Stat(ctx, at)
		if errors.Is(err, wire.NotFound) {
			in, err = r.Mkdir(ctx, dir, p, 0o755)
		}
		if err != nil {
			r.t.Fatal(at, err)
		}
		dir = in.Attr.Ino
	}
	f := &rigFile{r: r}
	if in, err := r.Stat(ctx, path); err == nil {
		f.ino = in.Attr.Ino
		r.mu.Lock()
		r.content[f.ino] = nil
		r.mu.Unlock()
	} else if f, err = r.Create(ctx, dir, parts[len(parts)-1], 0o644); err != nil {
		r.t.Fatal(path, err)
	}
	if _, err := f.WriteAt(ctx, []byte(data), 0); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
	return f.ino
}

// outputs are the files of a job's output directory.
func (r *rig) outputs(id uint64) map[string]string {
	r.t.Helper()
	job, _, err := getJob(context.Background(), r, id, false)
	if err != nil {
		r.t.Fatal(err)
	}
	entries, err := r.ReadDirInode(context.Background(), job.OutDir)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range entries {
		out[d.Name] = string(r.data(d.Ino))
	}
	return out
}

// attempts are the attempt directories that exist.
func (r *rig) attempts() (names []string) {
	r.t.Helper()
	entries, err := r.ReadDirInode(context.Background(), wire.OutputsIno)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range entries {
		if strings.HasPrefix(d.Name, "attempt.") {
			names = append(names, d.Name)
		}
	}
	return names
}

func (r *rig) files() Files { return rigFiles{r} }

// rigFiles is a rig as Files.
type rigFiles struct{ *rig }

func (r rigFiles) OpenInode(ctx context.Context, ino uint64) (File, error) {
	return asFile(r.rig.OpenInode(ctx, ino))
}

func (r rigFiles) Create(ctx context.Context, dir uint64, name string, mode uint32) (File, error) {
	return asFile(r.rig.Create(ctx, dir, name, mode))
}

func (r rigFiles) MkdirAs(ctx context.Context, cred *wire.Cred, dir uint64, name string, mode uint32) (*wire.Inode, error) {
	made, err := r.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_Create{Create: &wire.Create{
		Parent: dir, Name: name, Mode: typeDir | mode, Exclusive: true,
	}}})
	return made.GetInode(), err
}

func (r rigFiles) Chown(ctx context.Context, ino uint64, uid, gid uint32) error {
	_, err := r.Do(ctx, &wire.Command{Cred: rootCred, Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{
		Ino: ino, Mask: wire.SetUID | wire.SetGID, Uid: uid, Gid: gid,
	}}})
	return err
}

func asFile(f *rigFile, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// submit makes a job and returns its number.
func (r *rig) submit(name, spec string) uint64 {
	r.t.Helper()
	s := Submitter{Files: r.files(), Meta: r}
	id, err := s.Submit(context.Background(), rootCred, name, []byte(spec))
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	return id
}

// wait returns a job and its tasks once it has ended.
func (r *rig) wait(id uint64) (*wire.Job, []*wire.Task) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if _, err := WaitJob(ctx, r, id); err != nil {
		job, tasks, _ := getJob(context.Background(), r, id, true)
		r.t.Fatalf("job %d: %v\n%s: %s\n%s", id, err, job.GetState(), job.GetReason(), planText(job, tasks))
	}
	job, tasks, err := getJob(ctx, r, id, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return job, tasks
}

// startAgent runs an agent until the test, or the returned function, ends it.
func (r *rig) startAgent(name string, change func(*AgentConfig)) (node uint32, stop func()) {
	r.t.Helper()
	node = r.addNode("agent", name, "host-"+name)
	cfg := AgentConfig{
		Node: node, Host: name, Files: r.files(), Meta: r, Slots: 2, Speed: 100, Dir: agentDir,
		Worker: testWorker, WorkerEnv: []string{"QUERN_TEST_ROLE=worker"},
		Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := NewAgent(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.agents = append(r.agents, a)
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(stop)
	return node, stop
}

// until waits for cond, which is looked at after every change.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); <-ticker.C {
		if cond() {
			return
		}
	}
	r.t.Fatalf("it did not come to pass: %s", what)
}
