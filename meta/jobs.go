package meta

import (
	"context"
	"slices"
	"time"

	"quernfs/internal/transport"
	"quernfs/internal/wire"
)

// maxPoll bounds how long an agent's call may wait for a task.
const maxPoll = 30 * time.Second

// poll serves MethodPoll.
func (s *Server) poll(ctx context.Context, peer transport.Peer, p *wire.Poll) (*wire.PollReply, error) {
	l, err := s.leading("poll")
	if err != nil {
		return nil, err
	}
	if err := l.admission(peer).own("poll", p.GetNode()); err != nil {
		return nil, err
	}
	if s.cfg.Jobs == nil {
		return nil, wire.Errorf(wire.Unsupported, "poll", "", "this cluster runs no jobs")
	}
	ctx, done := context.WithTimeout(ctx, maxPoll)
	defer done()
	stop := context.AfterFunc(l.ctx, done)
	defer stop()
	reply, err := s.cfg.Jobs.Poll(ctx, p)
	if err != nil && l.ctx.Err() != nil {
		return nil, l.lost("poll")
	}
	return reply, err
}

// explain asks the scheduler why tasks of a job wait.
func (s *Server) explain(ctx context.Context, op *wire.ExplainJob) (*wire.Answer, error) {
	e, ok := s.cfg.Jobs.(interface {
		Explain(ctx context.Context, op *wire.ExplainJob) (*wire.JobsAnswer, error)
	})
	if !ok {
		return nil, wire.Errorf(wire.Unsupported, "explain", "", "this cluster runs no jobs")
	}
	a, err := e.Explain(ctx, op)
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Op: &wire.Answer_Jobs{Jobs: a}}, nil
}

// jobView is the JobView of one term.
type jobView struct {
	l       *leader
	changed chan struct{}
}

var _ JobView = (*jobView)(nil)

func (v *jobView) signal() { wake(v.changed) }

func (v *jobView) Changed() <-chan struct{} { return v.changed }

// Propose goes the way of every mutation, so that what a task's outputs replace
// is recalled first.
func (v *jobView) Propose(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	if !onlyJobs(cmd) {
		return nil, wire.Errorf(wire.Forbidden, "propose", "", "a scheduler gives commands about jobs only")
	}
	c, err := v.l.begin(ctx, &wire.Command{Cred: cmd.Cred, Op: cmd.Op})
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: "propose", Err: ctx.Err()}
	}
	if c.err == nil && c.result.Code != 0 {
		return c.result, wire.Errorf(wire.Code(c.result.Code), "propose", "", "%s", c.result.Message)
	}
	return c.result, c.err
}

// onlyJobs: the command, or each of a batch, is about jobs.
func onlyJobs(cmd *wire.Command) bool {
	if b, ok := cmd.Op.(*wire.Command_Batch); ok {
		return !slices.ContainsFunc(b.Batch.GetCommands(), func(c *wire.Command) bool { return !aboutJobs(c) })
	}
	return aboutJobs(cmd)
}

func (v *jobView) Query(q *wire.Query) (*wire.Answer, error) { return v.l.s.fsm.state().Query(q) }
func (v *jobView) Jobs() ([]*wire.Job, error)                { return v.l.s.fsm.state().Jobs() }
func (v *jobView) Nodes() []*wire.NodeStatus                 { return v.l.nodes.list() }
