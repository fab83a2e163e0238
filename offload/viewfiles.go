package offload

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"quernfs/internal/wire"
)

// viewFiles is the namespace as the leader has it: enough to expand the inputs
// of a job. It reads no contents.
type viewFiles struct{ view View }

func (f viewFiles) ask(q *wire.Query) (*wire.Answer, error) {
	q.Cred = rootCred
	ans, err := f.view.Query(q)
	if err == nil && ans.GetCode() != 0 {
		err = &wire.Error{Code: wire.Code(ans.Code), Op: "query", Err: errors.New(ans.Message)}
	}
	return ans, err
}

func (f viewFiles) Stat(ctx context.Context, p string) (*wire.Inode, error) {
	ino := wire.RootIno
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		ans, err := f.ask(&wire.Query{Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: ino, Name: name}}})
		if err != nil {
			return nil, err
		}
		if ino = ans.GetInode().GetInode().GetAttr().GetIno(); ino == 0 {
			return nil, &wire.Error{Code: wire.NotFound, Op: "stat", Object: p}
		}
	}
	ans, err := f.ask(&wire.Query{Op: &wire.Query_GetInode{GetInode: &wire.GetInode{Ino: ino}}})
	return ans.GetInode().GetInode(), err
}

func (f viewFiles) ReadDir(ctx context.Context, p string) ([]*wire.DirEntry, error) {
	in, err := f.Stat(ctx, p)
	if err != nil {
		return nil, err
	}
	return f.ReadDirInode(ctx, in.GetAttr().GetIno())
}

func (f viewFiles) ReadDirInode(_ context.Context, ino uint64) ([]*wire.DirEntry, error) {
	var all []*wire.DirEntry
	for after := uint64(0); ; {
		ans, err := f.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: ino, After: after, Plus: true}}})
		if err != nil {
			return nil, err
		}
		entries := ans.GetDir().GetEntries()
		all = append(all, entries...)
		if ans.GetDir().GetEof() || len(entries) == 0 {
			return all, nil
		}
		after = entries[len(entries)-1].Cookie
	}
}

func (f viewFiles) Layout(_ context.Context, ino uint64) ([]Piece, error) {
	var out []Piece
	for off := uint64(0); ; {
		ans, err := f.ask(&wire.Query{Op: &wire.Query_GetExtents{GetExtents: &wire.GetExtents{Ino: ino, Off: off}}})
		if err != nil {
			return nil, err
		}
		a := ans.GetExtents()
		size := a.GetInode().GetAttr().GetSize()
		upto := min(a.GetUpto(), size)
		out = append(out, piecesOf(a, off, upto)...)
		if upto >= size {
			return out, nil
		}
		if upto <= off {
			return nil, wire.Errorf(wire.Internal, "layout", "", "the extents end at %d of %d", upto, size)
		}
		off = upto
	}
}

// piecesOf are the pieces of [off, upto) that the extents of an answer cover.
func piecesOf(a *wire.ExtentsAnswer, off, upto uint64) (out []Piece) {
	blocks := map[uint64]*wire.Block{}
	for _, b := range a.GetBlocks() {
		blocks[b.Id] = b
	}
	for _, e := range a.GetExtents() {
		from, to := max(e.Off, off), min(e.Off+uint64(e.Len), upto)
		if from >= to {
			continue
		}
		if from > off {
			out = append(out, Piece{Off: off, Len: from - off})
		}
		b := blocks[e.Block]
		at := uint64(e.BlockOff) + from - e.Off
		for from < to {
			p := Piece{Off: from, Len: to - from, Block: e.Block}
			l := uint64(b.GetShardLength())
			switch {
			case l == 0:
			case b.K == 1:
				for _, s := range b.Shards {
					if s.Server != 0 {
						p.Servers = append(p.Servers, s.Server)
					}
				}
			default:
				i := at / l
				p.Len = min(p.Len, (i+1)*l-at)
				if i < uint64(len(b.Shards)) && b.Shards[i].Server != 0 {
					p.Servers = []uint32{b.Shards[i].Server}
				}
			}
			out = append(out, p)
			from, at = from+p.Len, at+p.Len
		}
		off = to
	}
	if off < upto {
		out = append(out, Piece{Off: off, Len: upto - off})
	}
	return out
}

func (f viewFiles) Where(ctx context.Context, ino uint64) (map[uint32]uint64, error) {
	pieces, err := f.Layout(ctx, ino)
	where := map[uint32]uint64{}
	for _, p := range pieces {
		for _, s := range p.Servers {
			where[s] += p.Len
		}
	}
	return where, err
}

var errNoContents = wire.Errorf(wire.Unsupported, "open", "", "a metadata server reads no files")

func (viewFiles) OpenInode(context.Context, uint64) (File, error) { return nil, errNoContents }
func (viewFiles) Create(context.Context, uint64, string, uint32) (File, error) {
	return nil, errNoContents
}
func (viewFiles) Mkdir(context.Context, uint64, string, uint32) (*wire.Inode, error) {
	return nil, errNoContents
}
func (viewFiles) MkdirAs(context.Context, *wire.Cred, uint64, string, uint32) (*wire.Inode, error) {
	return nil, errNoContents
}
func (viewFiles) Remove(context.Context, uint64, string, bool) error  { return errNoContents }
func (viewFiles) Chown(context.Context, uint64, uint32, uint32) error { return errNoContents }
func (viewFiles) Sync(context.Context) error                          { return nil }

// viewMeta answers queries as the leader has them.
type viewMeta struct{ view View }

func (m viewMeta) Ask(_ context.Context, q *wire.Query) (*wire.Answer, error) { return m.view.Query(q) }
func (m viewMeta) Do(ctx context.Context, cmd *wire.Command) (*wire.Result, error) {
	return m.view.Propose(ctx, cmd)
}
func (viewMeta) Call(context.Context, wire.Method, proto.Message) (proto.Message, error) {
	return nil, errNoContents
}
