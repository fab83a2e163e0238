package offload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// A standing rule is a file of /.compute/rules, or of a directory of a user's own
// (own.go): an ordinary one, which this mount reads through its own leases, so that
// a change on another mount counts from the next file on. A rule of root's in
// /.compute/rules is for what everybody writes, every other one for what its owner
// writes. So a job of a rule never has other rights than its owner.

const rulesPath = "/.compute/rules"

// Bounds of the rules that are looked at: shared ones, those of a user's own, and how
// many are remembered.
const (
	maxRules    = 256
	maxOwnRules = 64
	keptRules   = 4096
)

// OwnMark is what the name of a rule of a user's own begins with, as in jobs and errors.
const OwnMark = "~"

// ruleFile is a rule as it was last read.
type ruleFile struct {
	name             string // without .yaml
	ino              uint64
	size             uint64
	mtimeNs, ctimeNs int64
	uid              uint32
	rule             *jobfile.Rule // nil: it cannot be read as one
}

// rules remembers the rule files of a mount.
type rules struct {
	mu   sync.Mutex
	read map[string]*ruleFile // by path; guarded by mu
}

// allRules are the rules that can be read and may be for a user: the shared ones by
// name, then those of his own.
func (o *Overlay) allRules(ctx context.Context, uid uint32) ([]*ruleFile, error) {
	all, err := o.rulesIn(ctx, wire.RulesIno, rulesPath, "", maxRules)
	if err != nil {
		return nil, err
	}
	dir, err := ownDir(ctx, o.submit.Files, uid, "rules")
	if err != nil || dir == nil {
		return all, err
	}
	own, err := o.rulesIn(ctx, dir.GetAttr().GetIno(), ownRulesPath(uid), OwnMark, maxOwnRules)
	for _, f := range own {
		if f.uid == uid {
			all = append(all, f)
		}
	}
	return all, err
}

func ownRulesPath(uid uint32) string { return path.Join(userDir(uid), "rules") }

// rulesIn are the rules of a directory, by name, with a mark before each.
func (o *Overlay) rulesIn(ctx context.Context, dir uint64, at, mark string, most int) ([]*ruleFile, error) {
	entries, err := o.submit.Files.ReadDirInode(ctx, dir)
	if err != nil {
		if errors.Is(err, wire.NotFound) {
			err = nil // a cluster of before
		}
		return nil, err
	}
	if len(entries) == 0 {
		return nil, nil
	}
	var all []*ruleFile
	for _, d := range entries {
		name, ok := JobName(d.Name)
		if !ok || !isFile(d.Type) {
			continue
		}
		f, err := o.ruleFile(ctx, mark+name, path.Join(at, d.Name))
		if err != nil {
			return nil, err
		}
		if f != nil && f.rule != nil {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *ruleFile) int { return cmp.Compare(a.name, b.name) })
	return all[:min(len(all), most)], nil
}

// ruleFile reads a rule, unless it is known; nil: it is gone.
func (o *Overlay) ruleFile(ctx context.Context, name, file string) (*ruleFile, error) {
	in, err := o.submit.Files.Stat(ctx, file)
	if errors.Is(err, wire.NotFound) || err == nil && !isFile(in.GetAttr().GetMode()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := in.GetAttr()
	o.rules.mu.Lock()
	f := o.rules.read[file]
	o.rules.mu.Unlock()
	if f != nil && f.ino == a.GetIno() && f.size == a.GetSize() && f.mtimeNs == a.GetMtimeNs() && f.ctimeNs == a.GetCtimeNs() {
		return f, nil
	}
	f = &ruleFile{name: name, ino: a.GetIno(), size: a.GetSize(), mtimeNs: a.GetMtimeNs(), ctimeNs: a.GetCtimeNs(), uid: a.GetUid()}
	text, err := readAll(ctx, o.submit.Files, f.ino, jobfile.MaxFile)
	switch {
	case errors.Is(err, wire.NotFound) || errors.Is(err, wire.Stale):
		return nil, nil
	case errors.Is(err, wire.FileTooBig):
	case err != nil:
		return nil, err
	default:
		if f.rule, err = jobfile.ParseRule(text); err != nil {
			o.log.Warn("a rule cannot be read, and so does not count", "rule", name, "err", err)
		}
	}
	o.rules.mu.Lock()
	defer o.rules.mu.Unlock()
	if o.rules.read == nil || len(o.rules.read) > keptRules {
		o.rules.read = map[string]*ruleFile{}
	}
	o.rules.read[file] = f
	return f, nil
}

// rulesFor are the rules for what uid has written to, or moved to, a path.
func (o *Overlay) rulesFor(ctx context.Context, uid uint32, moved bool, p string, size uint64) ([]*ruleFile, error) {
	all, err := o.allRules(ctx, uid)
	return slices.DeleteFunc(all, func(f *ruleFile) bool {
		return f.uid != 0 && f.uid != uid || moved && !f.rule.Rename || !moved && !f.rule.Close || !f.rule.Applies(p, int64(size))
	}), err
}

// Standing implements fs.Rules.
func (o *Overlay) Standing(ctx context.Context, cred *wire.Cred, moved bool, at func() (p string, size uint64)) (bool, error) {
	all, err := o.allRules(ctx, cred.GetUid())
	if err != nil || at == nil {
		return len(all) > 0, err
	}
	if len(all) == 0 { // he may be writing the first one of his own
		if dir, err := ownDir(ctx, o.submit.Files, cred.GetUid(), "rules"); err != nil || dir == nil {
			return false, err
		}
	}
	p, size := at()
	if p == "" || strings.HasPrefix(p, "/.compute/") {
		return false, o.writtenRule(ctx, cred, moved, p)
	}
	all, err = o.rulesFor(ctx, cred.GetUid(), moved, p, size)
	return len(all) > 0, err
}

// writtenRule checks a rule of a user's own that was written in place.
func (o *Overlay) writtenRule(ctx context.Context, cred *wire.Cred, moved bool, p string) error {
	if _, ok := JobName(path.Base(p)); moved || !ok || path.Dir(p) != ownRulesPath(cred.GetUid()) {
		return nil
	}
	dir, err := ownDir(ctx, o.submit.Files, cred.GetUid(), "rules")
	if err != nil || dir == nil {
		return err
	}
	in, err := o.submit.Files.Stat(ctx, p)
	if err != nil {
		return err
	}
	return o.CheckRule(ctx, cred, dir.GetAttr().GetIno(), path.Base(p), in.GetAttr().GetIno())
}

// OwnRules implements fs.Rules.
func (o *Overlay) OwnRules(ctx context.Context, cred *wire.Cred, dir uint64) bool {
	in, err := ownDir(ctx, o.submit.Files, cred.GetUid(), "rules")
	return err == nil && in.GetAttr().GetIno() == dir && dir != 0
}

// ruleKey is what a rule of a directory is called in errors/, and in its jobs.
func ruleKey(dir uint64, name string) (string, bool) {
	key, ok := JobName(name)
	if dir != wire.RulesIno {
		key = OwnMark + key
	}
	return key, ok
}

// CheckRule implements fs.Rules: like Enqueue, for rules.
func (o *Overlay) CheckRule(ctx context.Context, cred *wire.Cred, dir uint64, name string, ino uint64) error {
	if strings.HasPrefix(name, ".") {
		return nil
	}
	key, ok := ruleKey(dir, name)
	if !ok {
		err := problem(wire.Invalid, name, 0, "a rule's name ends in .yaml; %q does not", name)
		o.refuse(ctx, cred, name, ino, err)
		return err
	}
	if err := o.checkRule(ctx, cred, key, ino); err != nil {
		o.refuse(ctx, cred, key, ino, err)
		return err
	}
	o.accept(ctx, cred, key, ino)
	o.log.Info("a rule was taken", "rule", key)
	return nil
}

func (o *Overlay) checkRule(ctx context.Context, cred *wire.Cred, key string, ino uint64) error {
	text, err := readAll(ctx, o.submit.Files, ino, jobfile.MaxFile)
	if wire.CodeOf(err) == wire.FileTooBig {
		return problem(wire.Invalid, key, 0, "a rule has at most %d KiB", jobfile.MaxFile>>10)
	}
	if err != nil {
		return problem(wire.CodeOf(err), key, 0, "reading the rule: %v", err)
	}
	r, err := jobfile.ParseRule(text)
	if err != nil {
		return &wire.Error{Code: wire.Invalid, Op: "rule", Object: key, Err: err}
	}
	if len(key) > maxRuleName {
		return problem(wire.Invalid, key, 0, "a rule's name has at most %d bytes", maxRuleName)
	}
	_, err = o.submit.prepare(ctx, cred, key, r.Job)
	return err
}

// maxRuleName leaves room in the names of jobs for that of the file.
const maxRuleName = 80

// RuleGone implements fs.Rules.
func (o *Overlay) RuleGone(ctx context.Context, cred *wire.Cred, dir uint64, name string) {
	if key, ok := ruleKey(dir, name); ok {
		o.accept(ctx, cred, key, 0)
	}
}

// firing is a job that is to be submitted for a file that has landed.
type firing struct {
	rule   string // "": the attribute of its directory
	spec   []byte
	source *wire.Source
}

// Landed implements fs.Attributes: it submits the jobs of the standing rules for a
// file, the one of its directory's attribute first. A job's name has the file's
// version, so that it is submitted once for each. A rule that does not fit the
// file is told in errors/ and in the file's user.compute.error; only where no
// answer comes the close fails.
//
// What may remove the file comes last, after the jobs of the others have ended;
// if several would, the last decides. It stays if one of the jobs is refused, or
// fails.
func (o *Overlay) Landed(ctx context.Context, cred *wire.Cred, t *Target, attribute []byte, moved bool) error {
	standing, err := o.rulesFor(ctx, cred.GetUid(), moved, t.Path, t.Inode.GetAttr().GetSize())
	if err != nil {
		return err
	}
	slices.SortStableFunc(standing, func(a, b *ruleFile) int { return cmp.Compare(drops(a), drops(b)) })
	var names []string
	whole := true // no job was refused
	fire := func(f firing) error {
		name, err := o.fire(ctx, cred, t, f)
		switch {
		case err == nil:
			names = append(names, name)
			return nil
		case wire.CodeOf(err).MayPass():
			return err
		}
		whole = false
		_ = o.refuseAt(ctx, cred, t, err)
		o.log.Warn("a rule could not fire", "rule", f.rule, "file", t.Path, "err", err)
		return nil
	}
	if len(attribute) > 0 {
		if attribute, err = o.ownAttribute(ctx, cred, t, attribute); err != nil {
			return err
		}
	}
	if len(attribute) > 0 {
		spec, err := o.attributeSpec(ctx, t, attribute)
		if err != nil {
			whole = false
			_ = o.refuseAt(ctx, cred, t, err)
		} else if err := fire(firing{spec: spec}); err != nil {
			return err
		}
	}
	for i, r := range standing {
		f := firing{rule: r.name}
		var after []string
		if last := i == len(standing)-1; last && drops(r) > 0 && whole {
			if f.source, err = o.source(ctx, t, r.rule.Then); err != nil {
				return err
			}
			after = names
		}
		if f.spec, err = r.rule.JobFile(t.Path, o.host, after...); err != nil {
			whole = false
			_ = o.refuseAt(ctx, cred, t, problem(wire.Invalid, t.Path, 0, "the rule %s: %v", r.name, err))
			continue
		}
		if err := fire(f); err != nil {
			return err
		}
	}
	return nil
}

// ownAttribute is the attribute of t's directory, if that belongs to root or to
// cred: the rule of another user could use the rights of who writes the file.
func (o *Overlay) ownAttribute(ctx context.Context, cred *wire.Cred, t *Target, attribute []byte) ([]byte, error) {
	if t.Path == "" {
		return attribute, nil // fire tells that the path is not known
	}
	dir, err := o.submit.Files.Stat(ctx, path.Dir(t.Path))
	if err != nil {
		return nil, err
	}
	if uid := dir.GetAttr().GetUid(); uid != 0 && uid != cred.GetUid() {
		o.log.Info("a rule is not for this file", "file", t.Path, "uid", cred.GetUid(), "owner", uid)
		return nil, nil
	}
	return attribute, nil
}

// drops is 1 for a rule that may remove the file.
func drops(f *ruleFile) int {
	if f.rule.Then.Drop == jobfile.Never {
		return 0
	}
	return 1
}

// fire submits one job for a file, and returns its name.
func (o *Overlay) fire(ctx context.Context, cred *wire.Cred, t *Target, f firing) (string, error) {
	if t.Path == "" {
		return "", problem(wire.NotFound, "", 0, "the path of this file is not known here; open it by its path and try again")
	}
	name := nameFor(t, f.spec, false)
	if f.rule != "" {
		name = f.rule + "-" + name
	}
	id, created, err := o.submit.submit(ctx, cred, name, f.spec, addition{rule: f.rule, source: f.source, about: []uint64{t.Ino}, mode: t.Inode.GetAttr().GetMode()})
	if err != nil {
		var e *wire.Error
		if f.rule != "" && errors.As(err, &e) {
			err = &wire.Error{Code: e.Code, Op: e.Op, Object: e.Object, Err: fmt.Errorf("the rule %s: %s", f.rule, sentence(err))}
		}
		return "", err
	}
	if !created {
		o.accept(ctx, cred, "", t.Ino)
	}
	o.log.Info("a rule has fired", "rule", f.rule, "file", t.Path, "job", id)
	return name, nil
}

var wireDrops = map[jobfile.Drop]wire.Drop{
	jobfile.Always: wire.Drop_ALWAYS, jobfile.Empty: wire.Drop_EMPTY, jobfile.NotEmpty: wire.Drop_NOT_EMPTY,
	jobfile.Found: wire.Drop_FOUND, jobfile.NotFound: wire.Drop_NOT_FOUND,
}

// source pins the file that a job may remove, as meta has it: before the job's
// inputs are pinned, so that what is removed is never newer than what was
// processed.
func (o *Overlay) source(ctx context.Context, t *Target, then jobfile.Then) (*wire.Source, error) {
	dir, err := o.submit.Files.Stat(ctx, path.Dir(t.Path))
	if err != nil {
		return nil, err
	}
	ans, err := ask(ctx, o.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: t.Ino}}})
	if err != nil {
		return nil, err
	}
	a := ans.GetInode().GetInode().GetAttr()
	return &wire.Source{
		Parent: dir.GetAttr().GetIno(), Name: path.Base(t.Path), Ino: t.Ino,
		Size: a.GetSize(), MtimeNs: a.GetMtimeNs(), CtimeNs: a.GetCtimeNs(),
		Drop: wireDrops[then.Drop], Pattern: then.Pattern,
	}, nil
}
