package offload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// The attributes of a file or directory that drive jobs.
const (
	attrRun        = "user.compute.run"
	attrParams     = "user.compute.params"
	attrOnClose    = "user.compute.on_close"
	attrCancel     = "user.compute.cancel"
	attrJob        = "user.compute.job"
	attrState      = "user.compute.state"
	attrResult     = "user.compute.result"
	attrError      = "user.compute.error"
	attrWhere      = "user.compute.where"
	attrProvenance = "user.compute.provenance"
)

// Target is a file or directory whose attribute is asked for or set; fs.Target
// is the same.
type Target = struct {
	Ino    uint64
	Inode  *wire.Inode
	Path   string // "": not known
	Stored func(ctx context.Context, name string) ([]byte, error)
}

func noAttr(name string) error { return &wire.Error{Code: wire.NoAttr, Op: "getxattr", Object: name} }

// GetAttribute implements fs.Attributes.
func (o *Overlay) GetAttribute(ctx context.Context, cred *wire.Cred, t *Target, name string) ([]byte, error) {
	switch name {
	case attrState, attrResult, attrError:
	case attrWhere:
		return o.where(ctx, t)
	case attrCancel:
		return nil, noAttr(name)
	default:
		return t.Stored(ctx, name)
	}
	if name == attrError {
		text, err := o.refusalAt(ctx, cred, t)
		if err != nil {
			return nil, err
		}
		if text != "" {
			return []byte(text), nil
		}
	}
	job, err := o.jobOf(ctx, t)
	if err != nil {
		return nil, err
	}
	switch {
	case !visible(cred, job):
	case name == attrState:
		return []byte(job.State + ": " + job.Reason), nil
	case name == attrError && (job.State == StateFailed || job.State == StateExpired || job.State == StateCancelled):
		return []byte(job.Reason), nil
	case name == attrResult && job.State == StateSucceeded:
		return []byte(resultPath(job)), nil
	}
	return nil, noAttr(name)
}

// resultPath is where the results of a job lie, below the mount.
func resultPath(job *wire.Job) string {
	dir := fmt.Sprintf("/.compute/jobs/%d/out", job.Id)
	spec, err := jobfile.Parse(job.Spec)
	if err != nil {
		return dir
	}
	where, _ := spec.OutputDir()
	if where == "" {
		where = dir
	}
	if spec.Reduce != nil || job.Tasks == 1 && !spec.OutputPerFile() {
		return path.Join(where, spec.OutputName(job.Name, "", 0, false))
	}
	if job.Tasks == 1 && len(spec.Inputs) == 1 && !jobfile.Wild(spec.Inputs[0].Pattern) {
		return path.Join(where, spec.OutputName(job.Name, spec.Inputs[0].Pattern, 0, false))
	}
	return where
}

// jobOf is the job that an attribute of t has submitted last.
func (o *Overlay) jobOf(ctx context.Context, t *Target) (*wire.Job, error) {
	v, err := t.Stored(ctx, attrJob)
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil {
		return nil, noAttr(attrJob)
	}
	job, _, err := getJob(ctx, o.meta, id, false)
	if errors.Is(err, wire.NotFound) {
		return nil, noAttr(attrJob)
	}
	return job, err
}

// ListAttributes implements fs.Attributes.
func (o *Overlay) ListAttributes(ctx context.Context, cred *wire.Cred, t *Target) []string {
	var out []string
	for _, name := range []string{attrState, attrResult, attrError} {
		if _, err := o.GetAttribute(ctx, cred, t, name); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// SetAttribute implements fs.Attributes.
func (o *Overlay) SetAttribute(ctx context.Context, cred *wire.Cred, t *Target, name string, value []byte) (map[string][]byte, error) {
	value = bytes.TrimSpace(value)
	switch name {
	case attrRun:
		return o.run(ctx, cred, t, value)
	case attrParams:
		if _, err := paramsOf(value); err != nil {
			return nil, o.refuseAt(ctx, cred, t, problem(wire.Invalid, t.Path, 0, "%v", err))
		}
		return map[string][]byte{name: value}, nil
	case attrOnClose:
		if !isDir(t.Inode.GetAttr().GetMode()) {
			return nil, o.refuseAt(ctx, cred, t, problem(wire.NotDir, t.Path, 0, "a standing rule belongs to a directory"))
		}
		// Jobs have the rights of who writes the files: that nobody else may choose
		// what they run.
		if uid := t.Inode.GetAttr().GetUid(); cred.GetUid() != 0 && cred.GetUid() != uid {
			return nil, o.refuseAt(ctx, cred, t, problem(wire.Perm, t.Path, 0, "a standing rule is set by the owner of the directory, uid %d, or by root", uid))
		}
		if len(value) == 0 {
			return map[string][]byte{name: nil}, nil
		}
		// The files that are to come may be called anything.
		text, err := specFor("/file", value, nil)
		if err == nil {
			_, err = jobfile.Parse(text)
		}
		if err != nil {
			return nil, o.refuseAt(ctx, cred, t, problem(wire.Invalid, t.Path, 0, "%v", err))
		}
		o.accept(ctx, cred, "", t.Ino)
		return map[string][]byte{name: value}, nil
	case attrCancel:
		job, err := o.jobOf(ctx, t)
		if err != nil || Ended(job.State) {
			return nil, err
		}
		return nil, o.control(ctx, cred, job, "cancel", attrCancel+" was set")
	}
	return nil, &wire.Error{Code: wire.Perm, Op: "setxattr", Object: name, Err: errors.New("this attribute is only read")}
}

// run submits a job over t.
func (o *Overlay) run(ctx context.Context, cred *wire.Cred, t *Target, value []byte) (map[string][]byte, error) {
	id, err := o.submitFor(ctx, cred, t, value, isDir(t.Inode.GetAttr().GetMode()))
	if err != nil {
		return nil, o.refuseAt(ctx, cred, t, err)
	}
	o.accept(ctx, cred, "", t.Ino)
	return map[string][]byte{attrRun: value, attrJob: strconv.AppendUint(nil, id, 10)}, nil
}

// submitFor submits the job that value describes, over t. again: also if the
// same was submitted before.
func (o *Overlay) submitFor(ctx context.Context, cred *wire.Cred, t *Target, value []byte, again bool) (uint64, error) {
	if t.Path == "" {
		return 0, problem(wire.NotFound, "", 0, "the path of this file is not known here; open it by its path and try again")
	}
	spec, err := o.attributeSpec(ctx, t, value)
	if err != nil {
		return 0, err
	}
	id, _, err := o.submit.submit(ctx, cred, nameFor(t, spec, again), spec, addition{mode: t.Inode.GetAttr().GetMode()})
	return id, err
}

// attributeSpec is the job file that the value of an attribute stands for, over t.
func (o *Overlay) attributeSpec(ctx context.Context, t *Target, value []byte) ([]byte, error) {
	params, err := t.Stored(ctx, attrParams)
	if err != nil && !errors.Is(err, wire.NoAttr) {
		return nil, err
	}
	spec, err := specFor(t.Path, value, params)
	if err != nil {
		return nil, problem(wire.Invalid, t.Path, 0, "%v", err)
	}
	return spec, nil
}

// nameFor names the job of an attribute: the file, and a digest of its version and
// of what is to be done.
func nameFor(t *Target, spec []byte, again bool) string {
	a := t.Inode.GetAttr()
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %d\n%s", t.Ino, a.GetSize(), a.GetMtimeNs(), spec)
	if again {
		fmt.Fprint(h, time.Now().UnixNano())
	}
	base := []byte(strings.TrimLeft(path.Base(t.Path), "."))
	if n := 150; len(base) > n {
		// Not within a character.
		for i := 0; i < utf8.UTFMax && !utf8.RuneStart(base[n]); i++ {
			n--
		}
		base = base[:n]
	}
	for i, c := range base {
		if c < ' ' || c == '/' || c == 0x7f {
			base[i] = '_'
		}
	}
	return fmt.Sprintf("%s-%.6x", base, h.Sum(nil))
}

// specFor makes the job file of an attribute: value is the name of a kernel, or
// the fields of a job file without version and inputs.
func specFor(input string, value, params []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, errors.New("it is empty: name a kernel, or give the fields of a job file")
	}
	if len(value) > jobfile.MaxFile {
		return nil, fmt.Errorf("it is larger than %d KiB", jobfile.MaxFile>>10)
	}
	fields := &yaml.Node{Kind: yaml.MappingNode}
	if !bytes.ContainsAny(value, ":\n") {
		add(fields, "kernel", &yaml.Node{Kind: yaml.ScalarNode, Value: string(value)})
	} else {
		var doc yaml.Node
		if err := jobfile.Unmarshal(value, &doc); err != nil {
			return nil, fmt.Errorf("not valid YAML: %s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
		}
		if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
			return nil, errors.New("it is the name of a kernel, or the fields of a job file such as \"kernel: wordcount\"")
		}
		fields = doc.Content[0]
	}
	for i := 0; i+1 < len(fields.Content); i += 2 {
		switch f := fields.Content[i].Value; f {
		case "version", "inputs", "name":
			return nil, fmt.Errorf("%s is not given here: the input is the file itself", f)
		case "params":
			params = nil
		}
	}
	if len(params) > 0 {
		p, err := paramsOf(params)
		if err != nil {
			return nil, err
		}
		add(fields, "params", p)
	}
	add(fields, "version", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
	add(fields, "inputs", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: jobfile.Literal(input), Style: yaml.DoubleQuotedStyle}}})
	return jobfile.Marshal(fields)
}

func add(fields *yaml.Node, name string, value *yaml.Node) {
	fields.Content = append(fields.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, value)
}

// paramsOf reads user.compute.params: NAME=VALUE, one a line, or a YAML mapping.
func paramsOf(value []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := jobfile.Unmarshal(value, &doc); err == nil && len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode {
		return doc.Content[0], nil
	}
	out := &yaml.Node{Kind: yaml.MappingNode}
	for line := range strings.Lines(string(value)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("parameters are NAME=VALUE, one a line, or a mapping such as {top: 20}, not %q", line)
		}
		add(out, k, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: yaml.DoubleQuotedStyle})
	}
	return out, nil
}
