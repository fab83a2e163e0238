// Package client runs jobs from programs: through a mount, by the files below
// its /.compute, as a shell would. It needs nothing but the mount.
//
//	c := client.At("/mnt/q")
//	job, err := c.Submit("count", []byte("version: 1\nkernel: wordcount\ninputs: /text\nreduce: {}\n"))
//	state, err := job.Wait(ctx)          // "succeeded", …
//	f, err := os.Open(job.Out("output"))
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Client runs jobs through one mount. Its methods may be called concurrently.
type Client struct{ compute string }

// At returns a client of the filesystem that is mounted at mnt.
func At(mnt string) *Client { return &Client{filepath.Join(mnt, ".compute")} }

// Job is one job. Its methods may be called concurrently.
type Job struct {
	Name string
	dir  string
	c    *Client
}

// RefusedError is a job that was not taken.
type RefusedError struct {
	Name   string
	Reason string // one sentence, with the line of the job file
	Err    error  // the errno: EINVAL, ENOENT, EACCES, EEXIST, EDQUOT, EOPNOTSUPP
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the job %s was not taken: %s", e.Name, e.Reason)
}
func (e *RefusedError) Unwrap() error { return e.Err }

// Submit submits a job file under a name, which is the key of the job: the same
// name with the same content is the same job. A job that is not taken is a
// *RefusedError.
func (c *Client) Submit(name string, spec []byte) (*Job, error) {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("%q cannot be the name of a job", name)
	}
	queue := filepath.Join(c.compute, "queue")
	aside, err := os.CreateTemp(queue, "."+name+".*")
	if err != nil {
		return nil, fmt.Errorf("no job can be submitted: %w", err)
	}
	_, err = aside.Write(spec)
	err = errors.Join(err, aside.Close())
	if err == nil {
		err = os.Rename(aside.Name(), filepath.Join(queue, name+".yaml"))
	}
	if err == nil {
		return c.Job(name), nil
	}
	_ = os.Remove(aside.Name())
	refused := &RefusedError{Name: name, Reason: err.Error(), Err: err}
	var link *os.LinkError
	if errors.As(err, &link) {
		refused.Reason, refused.Err = link.Err.Error(), link.Err
	}
	if why, err := os.ReadFile(filepath.Join(c.compute, "errors", name)); err == nil {
		refused.Reason = strings.TrimSpace(string(why))
	}
	return nil, refused
}

// Job returns the job of a name, whether or not there is one.
func (c *Client) Job(name string) *Job {
	return &Job{Name: name, dir: filepath.Join(c.compute, "by-name", name), c: c}
}

// State returns a job's state and its reason. Without such a job the error is
// fs.ErrNotExist.
func (j *Job) State() (state, reason string, err error) {
	if state, err = j.Read("state"); err != nil {
		return "", "", err
	}
	reason, err = j.Read("reason")
	return state, reason, err
}

// Read returns what a file of the job says: state, reason, plan, events, usage,
// provenance, spec, tasks/0/stderr, …
func (j *Job) Read(file string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(j.dir, filepath.FromSlash(file)))
	return strings.TrimSuffix(string(raw), "\n"), err
}

// Out is the path of a result in the job's own directory.
func (j *Job) Out(name string) string { return filepath.Join(j.dir, "out", name) }

// Control writes a verb: cancel, retry, pause, resume, priority N.
func (j *Job) Control(verb string) error {
	f, err := os.OpenFile(filepath.Join(j.dir, "ctl"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(verb + "\n")
	return errors.Join(err, f.Close())
}

// Wait waits until the job has ended and returns its state: succeeded, failed,
// cancelled or expired.
func (j *Job) Wait(ctx context.Context) (state string, err error) {
	pause := 10 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		state, err := j.Read("state")
		if err != nil {
			return "", err
		}
		switch state {
		case "succeeded", "failed", "cancelled", "expired":
			return state, nil
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return state, context.Cause(ctx)
		}
		pause = min(pause*3/2, 500*time.Millisecond)
	}
}

// Jobs lists the names of all jobs.
func (c *Client) Jobs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(c.compute, "by-name"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no mount of QuernFS: %w", filepath.Dir(c.compute), err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
