package offload

import (
	"context"
	"path"
	"strconv"
	"strings"

	"quernfs/internal/wire"
)

// Why something was refused lies with the metadata, so that every mount tells the
// same, after any restart; see meta/state/refusals.go for how long.

// maxSentence bounds what is kept of a sentence, in bytes.
const maxSentence = 4000

// refuse keeps the sentence of what was refused: a job file, a rule, an
// attribute. ino is the file; 0: none.
func (o *Overlay) refuse(ctx context.Context, cred *wire.Cred, name string, ino uint64, err error) {
	text := sentence(err)
	text = text[:min(len(text), maxSentence)]
	_, failed := o.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_PutRefusal{PutRefusal: &wire.PutRefusal{
		Name: name, Ino: ino, Text: text,
	}}})
	if failed != nil {
		o.log.Warn("why something was refused could not be stored", "name", name, "reason", text, "err", failed)
	}
}

// refuseAt keeps why the attribute of t was refused, and returns err.
func (o *Overlay) refuseAt(ctx context.Context, cred *wire.Cred, t *Target, err error) error {
	name := strings.TrimLeft(path.Base(t.Path), "./")
	if name == "" {
		name = strconv.FormatUint(t.Ino, 10)
	}
	o.refuse(ctx, cred, name, t.Ino, err)
	return err
}

func (o *Overlay) refusals(ctx context.Context, q *wire.ListRefusals) ([]*wire.Refusal, error) {
	ans, err := ask(ctx, o.meta, &wire.Query{Cred: rootCred, Op: &wire.Query_ListRefusals{ListRefusals: q}})
	return ans.GetRefusals().GetRefusals(), err
}

// refusal is the only one that fits.
func (o *Overlay) refusal(ctx context.Context, q *wire.ListRefusals) (*wire.Refusal, error) {
	all, err := o.refusals(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, gone("lookup", "errors/"+q.Name)
	}
	return all[0], nil
}

// refusalAt is the last refusal about a file, "" if there is none. It is for whom was
// refused and for the file's owner.
func (o *Overlay) refusalAt(ctx context.Context, cred *wire.Cred, t *Target) (string, error) {
	all, err := o.refusals(ctx, &wire.ListRefusals{Ino: t.Ino})
	if err != nil || len(all) == 0 {
		return "", err
	}
	last := all[len(all)-1]
	if uid := cred.GetUid(); uid != 0 && uid != last.Uid && uid != t.Inode.GetAttr().GetUid() {
		return "", nil
	}
	return last.Text, nil
}

// refusalsOf are those of a name ("": of any) that cred may know of: his own, or all.
func refusalsOf(cred *wire.Cred, name string) *wire.ListRefusals {
	return &wire.ListRefusals{Name: name, Own: cred.GetUid() != 0, Uid: cred.GetUid()}
}

// accept forgets what was refused of a name of cred's ("": of none) and about a file
// (0: about none).
func (o *Overlay) accept(ctx context.Context, cred *wire.Cred, name string, ino uint64) {
	var old bool
	for _, q := range []*wire.ListRefusals{{Name: name, Own: true, Uid: cred.GetUid()}, {Ino: ino}} {
		if q.Name == "" && q.Ino == 0 {
			continue
		}
		all, err := o.refusals(ctx, q)
		old = old || err != nil || len(all) > 0
	}
	if !old {
		return
	}
	_, err := o.meta.Do(ctx, &wire.Command{Cred: cred, Op: &wire.Command_ClearRefusal{ClearRefusal: &wire.ClearRefusal{Name: name, Ino: ino}}})
	if err != nil {
		o.log.Warn("an old refusal could not be forgotten", "name", name, "err", err)
	}
}
