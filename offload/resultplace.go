package offload

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"quernfs/internal/wire"
)

// resultPlace is where a result goes that leaves the job's own directory.
type resultPlace struct {
	names []string // of the results, in the directory
	below string   // the path of that directory below the one that the job names; "": it is that
	dir   uint64   // its inode, once it has been found or made; 0: the one that the job names
}

// set takes the path of a result, and returns its name. elsewhere: it leaves the
// job's own directory.
func (p *resultPlace) set(result string, elsewhere bool) (name string) {
	if !elsewhere {
		return result
	}
	name = path.Base(result)
	p.names = []string{name}
	if below := path.Dir(result); below != "." {
		p.below = below
	}
	return name
}

// makePlace makes the directories that a result needs, with the rights of the
// job's owner. Only what names the result is done once: a directory that an
// attempt has made for nothing stays.
func (r *attemptRun) makePlace(ctx context.Context) error {
	at := r.job.OutParent
	for name := range strings.SplitSeq(r.place.below, "/") {
		if name == "" {
			continue
		}
		next, err := r.makeDir(ctx, at, name)
		if err != nil {
			return fmt.Errorf("making the directory %s for the result: %w", r.place.below, err)
		}
		at, r.place.dir = next, next
	}
	return nil
}

// makeDir finds or makes a directory of the job's owner.
func (r *attemptRun) makeDir(ctx context.Context, parent uint64, name string) (uint64, error) {
	cred := r.job.GetCred()
	for range 3 { // somebody may make it, or remove it, in between
		ans, err := ask(ctx, r.agent.cfg.Meta, &wire.Query{Cred: cred, Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: parent, Name: name}}})
		if err == nil {
			a := ans.GetInode().GetInode().GetAttr()
			if !isDir(a.GetMode()) {
				return 0, wire.Errorf(wire.NotDir, "mkdir", "", "%s is there, and is not a directory", name)
			}
			return a.GetIno(), nil
		}
		if !errors.Is(err, wire.NotFound) {
			return 0, err
		}
		made, err := r.agent.cfg.Files.MkdirAs(ctx, cred, parent, name, dirMode(resultMode(r.job)))
		if err == nil {
			return made.GetAttr().GetIno(), nil
		}
		if !errors.Is(err, wire.Exists) {
			return 0, err
		}
	}
	return 0, wire.Errorf(wire.Busy, "mkdir", "", "%s comes and goes", name)
}
