package offload

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// The file .compute/api takes requests of the command line from whoever can reach
// the mount, with that caller's rights: so nobody needs a certificate to look at
// jobs. One write is one request, what is read then is its answer:
//
//	request  'q' | Query     a question about jobs or hosts
//	         'c' | Command   one that changes or forgets a job
//	answer   0 | Answer or Result
//	         1 | Failure

const (
	askQuery   = 'q'
	askCommand = 'c'
	maxRequest = 64 << 10 // bytes
)

// requestFile is one open of .compute/api.
type requestFile struct {
	o    *Overlay
	cred *wire.Cred

	mu     sync.Mutex
	answer []byte // guarded by mu
	read   int64  // of the answer; guarded by mu
}

// ReadAt returns the answer to the last request. Where in the file it is read does
// not matter: an answer begins where the one before has ended.
func (f *requestFile) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(p, f.answer[min(f.read, int64(len(f.answer))):])
	f.read += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *requestFile) Write(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 || len(p) > maxRequest {
		return 0, &wire.Error{Code: wire.Invalid, Op: "write"}
	}
	m, err := f.o.answer(ctx, f.cred, p[0], p[1:])
	answer := []byte{0}
	if err != nil {
		answer, m = []byte{1}, wire.ToFailure(err)
	}
	var how proto.MarshalOptions
	if answer, err = how.MarshalAppend(answer, m); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.read = answer, 0
	return len(p), nil
}

func (f *requestFile) Close() error { return nil }

// answer carries out a request with the rights of cred.
func (o *Overlay) answer(ctx context.Context, cred *wire.Cred, kind byte, body []byte) (proto.Message, error) {
	refuse := func(text string) (proto.Message, error) {
		return nil, wire.Errorf(wire.Invalid, "request", "", "%s", text)
	}
	switch kind {
	case askQuery:
		q := new(wire.Query)
		if proto.Unmarshal(body, q) != nil {
			return refuse("the request cannot be read")
		}
		q.Cred = cred
		// Of usage and accounts an ordinary user has his own.
		everybody := cred.GetUid() == 0
		switch op := q.Op.(type) {
		case *wire.Query_ListNodes, *wire.Query_ListJobs, *wire.Query_GetJob, *wire.Query_ExplainJob:
		case *wire.Query_ListAccounts:
			if !everybody {
				op.ListAccounts.Everybody, op.ListAccounts.Uid = false, cred.GetUid()
			}
		case *wire.Query_ListUsage:
			if !everybody {
				op.ListUsage.Everybody, op.ListUsage.Uid = false, cred.GetUid()
			}
		default:
			return refuse("only jobs, their usage, and hosts can be asked for here")
		}
		ans, err := ask(ctx, o.meta, q)
		if err != nil {
			return nil, err
		}
		return o.discreet(cred, ans), nil
	case askCommand:
		c := new(wire.Command)
		if proto.Unmarshal(body, c) != nil {
			return refuse("the request cannot be read")
		}
		if op := c.GetRemoveJob(); op != nil {
			return o.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_RemoveJob{RemoveJob: &wire.RemoveJob{Id: op.Id}}})
		}
		u := c.GetUpdateJob()
		if u == nil || len(u.Reason)+len(u.Event) > 1<<10 {
			return refuse("only jobs can be changed here")
		}
		// What is not said here, such as further tasks, is the scheduler's alone.
		say := &wire.UpdateJob{Id: u.Id, State: u.State, Reason: u.Reason, Event: u.Event, SetPriority: u.SetPriority, Priority: u.Priority, Pause: u.Pause, Resume: u.Resume}
		job, _, err := getJob(ctx, o.meta, u.Id, false)
		switch {
		case err != nil:
			return nil, err
		case !owns(cred, job):
			return nil, problem(wire.Denied, job.Name, 0, "job %d belongs to uid %d", job.Id, job.Cred.GetUid())
		case u.State != "" && u.State != StateCancelled && !(u.State == StatePending && Ended(job.State)):
			return refuse("a job can be cancelled, or tried again once it has ended")
		}
		return o.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_UpdateJob{UpdateJob: say}})
	}
	return refuse("the request cannot be read")
}

// discreet leaves of others' jobs what every queue shows: which there are, whose, and
// how far they are. A field that is not named here is nobody's business.
func (o *Overlay) discreet(cred *wire.Cred, ans *wire.Answer) *wire.Answer {
	jobs := ans.GetJobs()
	if jobs == nil {
		return ans
	}
	others := map[uint64]bool{}
	out := &wire.JobsAnswer{Template: jobs.Template}
	for _, j := range jobs.Jobs {
		if !visible(cred, j) {
			others[j.Id] = true
			out.Template = nil // of a single job
			j = &wire.Job{
				Id: j.Id, Name: j.Name, Cred: &wire.Cred{Uid: j.Cred.GetUid(), Gid: j.Cred.GetGid()}, Kernel: j.Kernel, Rule: j.Rule, State: j.State,
				Tasks: j.Tasks, TasksDone: j.TasksDone, TasksFailed: j.TasksFailed, TasksOff: j.TasksOff, Array: j.Array, Priority: j.Priority, Paused: j.Paused,
				SubmittedNs: j.SubmittedNs, StartedNs: j.StartedNs, EndedNs: j.EndedNs, Visibility: j.Visibility,
			}
		}
		out.Jobs = append(out.Jobs, j)
	}
	for _, t := range jobs.Tasks { // those that the scheduler explains come without their job, and say no more than this
		if others[t.Job] {
			t = &wire.Task{
				Job: t.Job, N: t.N, Phase: t.Phase, State: t.State, Attempt: t.Attempt, Host: t.Host, Device: t.Device, Runtime: t.Runtime,
				StartedNs: t.StartedNs, EndedNs: t.EndedNs,
			}
		}
		out.Tasks = append(out.Tasks, t)
	}
	quiet := wire.Shallow(ans)
	quiet.Op = &wire.Answer_Jobs{Jobs: out}
	return quiet
}

// MountMeta is Meta by the file .compute/api of a mount: what the command line needs
// of it. Its methods may be called concurrently.
type MountMeta struct {
	mu   sync.Mutex
	file io.ReadWriter
}

// NewMountMeta makes requests through file, an open .compute/api.
func NewMountMeta(file io.ReadWriter) *MountMeta { return &MountMeta{file: file} }

// Ask implements Meta.
func (m *MountMeta) Ask(_ context.Context, q *wire.Query) (*wire.Answer, error) {
	ans := new(wire.Answer)
	return ans, m.request(askQuery, q, ans)
}

// Do implements Meta.
func (m *MountMeta) Do(_ context.Context, c *wire.Command) (*wire.Result, error) {
	r := new(wire.Result)
	return r, m.request(askCommand, c, r)
}

// Call implements Meta: there is nothing that can be called.
func (m *MountMeta) Call(context.Context, wire.Method, proto.Message) (proto.Message, error) {
	return nil, wire.Errorf(wire.Unsupported, "call", "", "this cannot be had through a mount")
}

func (m *MountMeta) request(kind byte, q, answer proto.Message) error {
	var how proto.MarshalOptions
	body, err := how.MarshalAppend([]byte{kind}, q)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.file.Write(body); err != nil {
		return err
	}
	reply, err := io.ReadAll(m.file)
	if err != nil {
		return err
	}
	switch {
	case len(reply) == 0:
		return errors.New("the mount has not answered")
	case reply[0] == 1:
		f := new(wire.Failure)
		if proto.Unmarshal(reply[1:], f) == nil {
			return f.Err()
		}
	case proto.Unmarshal(reply[1:], answer) == nil:
		return nil
	}
	return errors.New("the mount's answer cannot be read: it is of another version of quern")
}
