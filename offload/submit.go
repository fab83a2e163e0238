package offload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// Submitter turns job files into jobs.
type Submitter struct {
	Files Files
	Meta  Meta
}

// JobName is the key of a job file's name: NAME of NAME.yaml. ok is false for
// names that a job file cannot have.
func JobName(file string) (name string, ok bool) {
	for _, suffix := range []string{".yaml", ".yml"} {
		if n, found := strings.CutSuffix(file, suffix); found {
			return n, n != "" && !strings.HasPrefix(n, ".")
		}
	}
	return "", false
}

// Submit checks a job file and makes its job durable. What the job leaves is its
// owner's alone, unless its visibility says more: there is no file whose permissions
// it could have. The same name with the same content is the same job. An error is a
// *wire.Error whose cause is a sentence: Invalid, NotFound (an input, a kernel),
// Denied, Exists.
func (s *Submitter) Submit(ctx context.Context, cred *wire.Cred, name string, spec []byte) (id uint64, err error) {
	id, _, err = s.submit(ctx, cred, name, spec, addition{})
	return id, err
}

// addition is what a job has beyond its job file.
type addition struct {
	rule   string       // that it is of
	source *wire.Source // which it may remove
	about  []uint64     // files of which nothing is refused any more
	mode   uint32       // of the file that it was submitted with, or for; 0: none
}

// submit is Submit with an addition; created: there was no such job before.
func (s *Submitter) submit(ctx context.Context, cred *wire.Cred, name string, spec []byte, more addition) (id uint64, created bool, err error) {
	digest := sha256.Sum256(spec)
	old, err := findJob(ctx, s.Meta, name)
	if err != nil {
		return 0, false, problem(wire.CodeOf(err), name, 0, "looking for an earlier job of this name: %v", err)
	}
	if old != nil {
		if bytes.Equal(old.Digest, digest[:]) {
			return old.Id, false, nil
		}
		return 0, false, problem(wire.Exists, name, 0, "job %d has this name already, with other content; give this one another name", old.Id)
	}
	parsed, err := jobfile.Parse(spec)
	if err != nil {
		return 0, false, &wire.Error{Code: wire.Invalid, Op: "job", Object: name, Err: err}
	}
	if parsed.Name != "" && parsed.Name != name {
		return 0, false, problem(wire.Invalid, name, parsed.NameLine, "the name is %q but the file is called %s.yaml; leave the name out or make them the same", parsed.Name, name)
	}
	job, tasks, err := s.plan(ctx, cred, name, parsed)
	if err != nil {
		return 0, false, err
	}
	job.Name, job.Digest, job.Spec, job.Cred = name, digest[:], spec, cred
	job.Rule, job.Source = more.rule, more.source
	if parsed.Continue {
		job.OnFailure, job.ReduceRest = wire.OnFailure_CONTINUE, parsed.ReduceRest
		job.MaxFailed = uint32(parsed.MostFailed(max(tasks.array, len(tasks.tasks))))
	}
	job.Visibility, job.Mode = seenBy(parsed.Visibility, more.mode)
	op := &wire.SubmitJob{Job: job, About: more.about, Template: tasks.template}
	job.Array = uint32(tasks.array)
	list, large := pieces(tasks.tasks)
	if large || proto.Size(op.Template) > maxCommand {
		return 0, false, problem(wire.Invalid, name, 0, tooLarge)
	}
	var drop func()
	op.Tasks = list[len(list)-1]
	op.Staged, drop, err = s.stage(ctx, cred, list)
	var r *wire.Result
	if err == nil {
		r, err = s.Meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_SubmitJob{SubmitJob: op}})
	}
	if err != nil || !r.Created {
		drop()
	}
	if errors.Is(err, wire.Exists) {
		return 0, false, problem(wire.Exists, name, 0, "another job of this name was submitted just now, with other content")
	}
	if errors.Is(err, wire.Quota) {
		return 0, false, problem(wire.Quota, name, 0, "%s", sentence(err))
	}
	if err != nil {
		return 0, false, problem(wire.CodeOf(err), name, 0, "the job could not be stored: %v", err)
	}
	return r.Value, r.Created, nil
}

// findJob returns the job of that name, or nil.
func findJob(ctx context.Context, m Meta, name string) (*wire.Job, error) {
	ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{Name: name, Limit: 1}}})
	if errors.Is(err, wire.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, j := range ans.GetJobs().GetJobs() {
		if j.Name == name {
			return j, nil
		}
	}
	return nil, nil
}

// ask is Ask with the answer's code as its error.
func ask(ctx context.Context, m Meta, q *wire.Query) (*wire.Answer, error) {
	ans, err := m.Ask(ctx, q)
	if err == nil && ans.GetCode() != 0 {
		err = &wire.Error{Code: wire.Code(ans.Code), Op: "query", Err: errors.New(ans.Message)}
	}
	return ans, err
}

// sentence is what errors/NAME says of err.
func sentence(err error) string {
	var e *wire.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func size(n uint64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}
