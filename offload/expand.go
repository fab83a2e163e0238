package offload

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// maxFiles bounds the inputs of one job.
const maxFiles = 200_000

// problem is why a job is refused: an errno's code and a sentence.
func problem(c wire.Code, name string, line int, format string, args ...any) *wire.Error {
	return &wire.Error{Code: c, Op: "job", Object: name, Err: jobfile.Errorf(line, format, args...)}
}

// expander finds the files that a job's inputs name, as cred may.
type expander struct {
	files Files
	meta  Meta
	cred  *wire.Cred
	job   string
	found map[string]*wire.TaskInput
	nodes []*wire.NodeStatus // of the cluster; nil: not asked yet
}

// expand returns the files, sorted by path, each once.
func (e *expander) expand(ctx context.Context, inputs []jobfile.Input) ([]*wire.TaskInput, error) {
	e.found = map[string]*wire.TaskInput{}
	for _, in := range inputs {
		before := len(e.found)
		had := e.found[in.Pattern] != nil
		if err := e.one(ctx, in); err != nil {
			return nil, err
		}
		if jobfile.Wild(in.Pattern) && len(e.found) == before && !had && !e.matchesAny(in.Pattern) {
			return nil, problem(wire.NotFound, e.job, in.Line, "no file matches %s", in.Pattern)
		}
	}
	out := make([]*wire.TaskInput, 0, len(e.found))
	for _, f := range e.found {
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, problem(wire.NotFound, e.job, inputs[0].Line, "there is no file in the directories that the inputs name")
	}
	slices.SortFunc(out, func(a, b *wire.TaskInput) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// matchesAny says whether files found before fit the pattern.
func (e *expander) matchesAny(pattern string) bool {
	for p := range e.found {
		if jobfile.Match(pattern, p) {
			return true
		}
	}
	return false
}

func (e *expander) one(ctx context.Context, in jobfile.Input) error {
	base := jobfile.Base(in.Pattern)
	inode, err := e.reach(ctx, base, in.Line)
	if err != nil {
		return err
	}
	mode := inode.GetAttr().GetMode()
	switch {
	case isDir(mode):
		pattern := in.Pattern
		if !jobfile.Wild(pattern) {
			pattern = "" // a tree: everything below
		}
		return e.walk(ctx, base, inode, pattern, in.Line)
	case jobfile.Wild(in.Pattern):
		return problem(wire.NotDir, e.job, in.Line, "%s is not a directory", base)
	case mode&typeMask == typeLink:
		return problem(wire.Invalid, e.job, in.Line, "%s is a symbolic link; name what it points to", base)
	case !isFile(mode):
		return problem(wire.Invalid, e.job, in.Line, "%s is neither a file nor a directory", base)
	}
	return e.add(ctx, base, inode, in.Line)
}

// reach finds the inode at p, and checks that cred may search its way there.
func (e *expander) reach(ctx context.Context, p string, line int) (*wire.Inode, error) {
	for dir := path.Dir(p); p != "/"; dir = path.Dir(dir) {
		inode, err := e.files.Stat(ctx, dir)
		if err != nil {
			return nil, e.statError(err, dir, line)
		}
		if err := e.may(ctx, inode, 1, dir, line); err != nil {
			return nil, err
		}
		if dir == "/" {
			break
		}
	}
	inode, err := e.files.Stat(ctx, p)
	if err != nil {
		return nil, e.statError(err, p, line)
	}
	return inode, nil
}

func (e *expander) statError(err error, p string, line int) error {
	if errors.Is(err, wire.NotFound) {
		return problem(wire.NotFound, e.job, line, "there is no %s", p)
	}
	return problem(wire.CodeOf(err), e.job, line, "%s: %v", p, err)
}

// walk adds the files below dir that fit the pattern ("": all). A link is not
// followed, /.compute not entered.
func (e *expander) walk(ctx context.Context, dir string, inode *wire.Inode, pattern string, line int) error {
	if err := e.may(ctx, inode, 4|1, dir, line); err != nil {
		return err
	}
	entries, err := e.files.ReadDir(ctx, dir)
	if err != nil {
		if errors.Is(err, wire.NotFound) && dir != jobfile.Base(pattern) {
			return nil // removed while we walked
		}
		return e.statError(err, dir, line)
	}
	for _, d := range entries {
		p := path.Join(dir, d.Name)
		if d.Ino == wire.ComputeIno || d.Name == "." || d.Name == ".." {
			continue
		}
		switch {
		case isDir(d.Type):
			if pattern != "" && !jobfile.MayHold(pattern, p) {
				continue
			}
		case !isFile(d.Type) || pattern != "" && !jobfile.Match(pattern, p):
			continue
		}
		child := d.Inode
		if child == nil {
			child, err = e.files.Stat(ctx, p)
			if errors.Is(err, wire.NotFound) {
				continue
			}
			if err != nil {
				return e.statError(err, p, line)
			}
		}
		if isDir(child.GetAttr().GetMode()) {
			err = e.walk(ctx, p, child, pattern, line)
		} else {
			err = e.add(ctx, p, child, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *expander) add(ctx context.Context, p string, inode *wire.Inode, line int) error {
	if e.found[p] != nil {
		return nil
	}
	if err := e.may(ctx, inode, 4, p, line); err != nil {
		return err
	}
	if len(e.found) == maxFiles {
		return problem(wire.Invalid, e.job, line, "the inputs are more than %d files", maxFiles)
	}
	a := inode.Attr
	e.found[p] = &wire.TaskInput{Path: p, Ino: a.Ino, Size: a.Size, Version: a.Version, MtimeNs: a.MtimeNs}
	return nil
}

// may checks permission: mask of R 4, W 2, X 1. Mode bits decide where they
// can; meta is asked where an ACL has a say.
func (e *expander) may(ctx context.Context, inode *wire.Inode, mask uint32, p string, line int) error {
	a := inode.GetAttr()
	if e.cred.GetUid() == 0 {
		return nil
	}
	var ok bool
	if inode.GetHasAcl() {
		ans, err := e.meta.Ask(ctx, &wire.Query{Cred: e.cred, Op: &wire.Query_Access{Access: &wire.Access{Ino: a.GetIno(), Mask: mask}}})
		if err == nil && ans.GetCode() != 0 {
			err = wire.Code(ans.GetCode())
		}
		if err != nil && !errors.Is(err, wire.Denied) {
			return e.statError(err, p, line)
		}
		ok = err == nil
	} else {
		bits := a.GetMode()
		switch {
		case a.GetUid() == e.cred.GetUid():
			bits >>= 6
		case a.GetGid() == e.cred.GetGid() || slices.Contains(e.cred.GetGroups(), a.GetGid()):
			bits >>= 3
		}
		ok = bits&mask == mask
	}
	if !ok {
		return problem(wire.Denied, e.job, line, "no permission to read %s", p)
	}
	return nil
}
