package state

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// TestScripts runs testdata/*.txt. Each line is an operation, with " -> " and
// what it must answer; without it, "ok". "#" begins a comment. A script begins
// as root, outside of any session; $NAME is a number kept with "=NAME", and
// $LONGEST and $TOOLONG are names.
//
//	as UID GID [GROUP,…]                    whose credentials the next lines have
//	session NAME | use NAME | end NAME      sessions; "use -" is none
//	create|mkdir PATH MODE [excl] [umask=M] [ino=N]
//	symlink PATH TARGET | mknod PATH p|s|c|b MODE [RDEV] | tmpfile DIR MODE =NAME
//	unlink|rmdir PATH [open=NAME,…] | link OLD NEW | release INO
//	rename OLD NEW [noreplace|exchange] [whiteout] [open=NAME,…]
//	chmod PATH MODE | chown PATH UID|- GID|- | truncate PATH SIZE [handle]
//	utimes PATH ATIME|now|- MTIME|now|- [handle]
//	setx PATH NAME VALUE [create|replace] | rmx PATH NAME | getx PATH NAME | listx PATH
//	setacl PATH access|default ACL | getacl PATH access|default
//	write PATH OFF LEN …                    a commit of one new block
//	inline PATH TEXT | extents PATH | block ID
//	falloc PATH MODE OFF LEN | clone SRC OFF DST OFF LEN
//	move BLOCK INDEX FROM TO | lose BLOCK INDEX SERVER | purge BLOCK … | dead TIME | degraded
//	stat PATH FIELD … | ls PATH | access PATH rwx | counts FIELD …
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			x := &script{rig: newRig(t), sessions: map[string]uint64{"-": 0}, vars: map[string]string{
				"LONGEST": strings.Repeat("n", wire.MaxName), "TOOLONG": strings.Repeat("n", wire.MaxName+1),
			}}
			for n, line := range strings.Split(string(text), "\n") {
				line, _, _ = strings.Cut(line, "#")
				if line = strings.TrimSpace(line); line == "" {
					continue
				}
				op, want, ok := strings.Cut(line, " ->")
				if !ok {
					want = "ok"
				}
				got := x.line(strings.Fields(op))
				if got != x.expand(strings.TrimSpace(want)) {
					t.Errorf("%s:%d: %s\n got  %s\n want %s", file, n+1, op, got, want)
				}
			}
			x.check()
			x.replay(1<<20, 3)
		})
	}
}

type script struct {
	*rig
	sessions map[string]uint64
	vars     map[string]string
}

func (x *script) expand(s string) string {
	for name, value := range x.vars {
		s = strings.ReplaceAll(s, "$"+name, value)
	}
	return s
}

func number(s string, base int) uint64 {
	n, err := strconv.ParseUint(s, base, 64)
	if err != nil {
		panic("not a number: " + s)
	}
	return n
}

// option takes name=value out of args.
func option(args *[]string, name string) (string, bool) {
	for i, a := range *args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			*args = slices.Delete(slices.Clone(*args), i, i+1)
			return v, true
		}
	}
	return "", false
}

func flag(args *[]string, name string) bool {
	i := slices.Index(*args, name)
	if i >= 0 {
		*args = slices.Delete(slices.Clone(*args), i, i+1)
	}
	return i >= 0
}

// ino is the inode of a path; one that does not exist otherwise.
func (x *script) ino(path string) uint64 {
	if ino, ok := x.walk(path); ok {
		return ino
	}
	return 1 << 40
}

func (x *script) open(args *[]string) (ids []uint64) {
	if v, ok := option(args, "open"); ok {
		for name := range strings.SplitSeq(v, ",") {
			ids = append(ids, x.sessions[name])
		}
	}
	return ids
}

func (x *script) result(r *wire.Result) string {
	if r.Kept {
		return codeName(r.Code) + " kept"
	}
	return codeName(r.Code)
}

func (x *script) line(f []string) string {
	for i := range f {
		f[i] = x.expand(f[i])
	}
	op, args := f[0], f[1:]
	var keep string
	if n := len(args); n > 0 && strings.HasPrefix(args[n-1], "=") {
		keep, args = args[n-1][1:], args[:n-1]
	}
	if got, ok := x.control(op, args); ok {
		return got
	}
	if got, ok := x.question(op, args); ok {
		if keep != "" {
			x.vars[keep] = got
		}
		return got
	}
	c := x.namespace(op, args)
	if c == nil {
		c = x.content(op, args)
	}
	if c == nil {
		x.tb.Fatalf("unknown operation %q", op)
	}
	var r *wire.Result
	switch c.Op.(type) {
	case *wire.Command_MoveShard, *wire.Command_LoseShard, *wire.Command_PurgeBlocks:
		r = x.leader(c)
	default:
		r = x.do(c)
	}
	if keep != "" && r.Code == 0 {
		x.vars[keep] = fmt.Sprint(r.Inode.GetAttr().GetIno())
	}
	return x.result(r)
}

func (x *script) control(op string, args []string) (string, bool) {
	switch op {
	case "as":
		x.cred = &wire.Cred{Uid: uint32(number(args[0], 10)), Gid: uint32(number(args[1], 10))}
		if len(args) > 2 {
			for g := range strings.SplitSeq(args[2], ",") {
				x.cred.Groups = append(x.cred.Groups, uint32(number(g, 10)))
			}
		}
	case "session":
		x.session = x.openSession(args[0])
		x.sessions[args[0]] = x.session
	case "use":
		x.session = x.sessions[args[0]]
	case "end":
		return x.result(x.endSession(x.sessions[args[0]])), true
	default:
		return "", false
	}
	return "ok", true
}

func (x *script) namespace(op string, args []string) *wire.Command {
	c := new(wire.Command)
	switch op {
	case "create", "mkdir", "mknod", "symlink", "tmpfile":
		m := &wire.Create{Exclusive: flag(&args, "excl")}
		if v, ok := option(&args, "umask"); ok {
			m.Umask = uint32(number(v, 8))
		}
		if v, ok := option(&args, "ino"); ok {
			m.Ino = number(v, 10)
		}
		if op == "tmpfile" {
			m.Parent, m.Tmpfile = x.ino(args[0]), true
		} else {
			m.Parent, m.Name = x.split(args[0])
		}
		switch op {
		case "symlink":
			m.Mode, m.Symlink = sIFLNK|0o777, strings.Join(args[1:], " ")
		case "mknod":
			kinds := map[string]uint32{"p": sIFIFO, "s": sIFSOCK, "c": sIFCHR, "b": sIFBLK}
			m.Mode = kinds[args[1]] | uint32(number(args[2], 8))
			if len(args) > 3 {
				m.Rdev = uint32(number(args[3], 10))
			}
		case "mkdir":
			m.Mode = sIFDIR | uint32(number(args[1], 8))
		default:
			m.Mode = sIFREG | uint32(number(args[1], 8))
		}
		c.Op = &wire.Command_Create{Create: m}
	case "unlink", "rmdir":
		m := &wire.Unlink{Dir: op == "rmdir", OpenSessions: x.open(&args)}
		m.Parent, m.Name = x.split(args[0])
		c.Op = &wire.Command_Unlink{Unlink: m}
	case "rename":
		m := &wire.Rename{OpenSessions: x.open(&args)}
		if flag(&args, "noreplace") {
			m.Flags |= renameNoReplace
		}
		if flag(&args, "exchange") {
			m.Flags |= renameExchange
		}
		if flag(&args, "whiteout") {
			m.Flags |= renameWhiteout
		}
		m.Parent, m.Name = x.split(args[0])
		m.NewParent, m.NewName = x.split(args[1])
		c.Op = &wire.Command_Rename{Rename: m}
	case "link":
		m := &wire.Link{Ino: x.ino(args[0])}
		m.NewParent, m.NewName = x.split(args[1])
		c.Op = &wire.Command_Link{Link: m}
	case "release":
		c.Op = &wire.Command_ReleaseOrphans{ReleaseOrphans: &wire.ReleaseOrphans{Inos: []uint64{number(args[0], 10)}}}
	case "chmod", "chown", "truncate", "utimes":
		c.Op = &wire.Command_SetAttr{SetAttr: x.setAttr(op, args)}
	case "setx", "rmx", "setacl":
		m := &wire.SetXattr{Ino: x.ino(args[0]), Name: args[1], Remove: op == "rmx"}
		if flag(&args, "create") {
			m.Flags |= xattrCreate
		}
		if flag(&args, "replace") {
			m.Flags |= xattrReplace
		}
		switch {
		case op == "setacl":
			m.Name, m.Value = "system.posix_acl_"+args[1], parseACL(x.tb, args[2]).Encode()
		case len(args) > 2:
			m.Value = []byte(args[2])
		}
		c.Op = &wire.Command_SetXattr{SetXattr: m}
	default:
		return nil
	}
	return c
}

func (x *script) setAttr(op string, args []string) *wire.SetAttr {
	m := &wire.SetAttr{Ino: x.ino(args[0]), Handle: flag(&args, "handle")}
	switch op {
	case "chmod":
		m.Mask, m.Mode = wire.SetMode, uint32(number(args[1], 8))
	case "chown":
		if args[1] != "-" {
			m.Mask, m.Uid = m.Mask|wire.SetUID, uint32(number(args[1], 10))
		}
		if args[2] != "-" {
			m.Mask, m.Gid = m.Mask|wire.SetGID, uint32(number(args[2], 10))
		}
	case "truncate":
		m.Mask, m.Size = wire.SetSize, number(args[1], 10)
	case "utimes":
		switch args[1] {
		case "-":
		case "now":
			m.Mask |= wire.AtimeNow
		default:
			m.Mask, m.AtimeNs = m.Mask|wire.SetAtime, int64(number(args[1], 10))
		}
		switch args[2] {
		case "-":
		case "now":
			m.Mask |= wire.MtimeNow
		default:
			m.Mask, m.MtimeNs = m.Mask|wire.SetMtime, int64(number(args[2], 10))
		}
	}
	return m
}

func (x *script) content(op string, args []string) *wire.Command {
	c := new(wire.Command)
	num := func(i int) uint64 { return number(args[i], 10) }
	switch op {
	case "write":
		f := &wire.FileUpdate{Ino: x.ino(args[0])}
		length := uint32(0)
		for i := 1; i < len(args); i += 2 {
			f.Extents = append(f.Extents, &wire.Extent{Off: num(i), Len: uint32(num(i + 1)), Block: x.block + 1, BlockOff: length})
			length += uint32(num(i + 1))
		}
		c.Op = &wire.Command_Commit{Commit: &wire.Commit{Blocks: []*wire.Block{x.newBlock(int(length))}, Files: []*wire.FileUpdate{f}}}
	case "inline":
		f := &wire.FileUpdate{Ino: x.ino(args[0]), HasInline: true, Inline: []byte(strings.Join(args[1:], " "))}
		c.Op = &wire.Command_Commit{Commit: &wire.Commit{Files: []*wire.FileUpdate{f}}}
	case "falloc":
		c.Op = &wire.Command_Fallocate{Fallocate: &wire.Fallocate{Ino: x.ino(args[0]), Mode: uint32(num(1)), Off: num(2), Len: num(3)}}
	case "clone":
		c.Op = &wire.Command_Clone{Clone: &wire.Clone{Src: x.ino(args[0]), SrcOff: num(1), Dst: x.ino(args[2]), DstOff: num(3), Len: num(4)}}
	case "move":
		b := signed(benchKey, num(0), 2, 1, 1)
		if old, err := x.s.Block(num(0)); err == nil {
			b = signed(benchKey, num(0), 2, 1, int(old.Length))
		}
		shard := b.Shards[num(1)]
		shard.Server = uint32(num(3))
		shard.Proof = proofOf(shard.Server, b, int(num(1)))
		c.Op = &wire.Command_MoveShard{MoveShard: &wire.MoveShard{Block: num(0), Index: uint32(num(1)), From: uint32(num(2)), Shard: shard}}
	case "lose":
		c.Op = &wire.Command_LoseShard{LoseShard: &wire.LoseShard{Block: num(0), Index: uint32(num(1)), Server: uint32(num(2))}}
	case "purge":
		m := new(wire.PurgeBlocks)
		for i := range args {
			m.Blocks = append(m.Blocks, num(i))
		}
		c.Op = &wire.Command_PurgeBlocks{PurgeBlocks: m}
	default:
		return nil
	}
	return c
}

func (x *script) question(op string, args []string) (string, bool) {
	switch op {
	case "stat":
		return x.stat(args[0], args[1:]), true
	case "ls":
		a := x.ask(&wire.Query{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: x.ino(args[0])}}})
		var names []string
		for _, e := range a.GetDir().GetEntries() {
			names = append(names, e.Name)
		}
		sort.Strings(names)
		return answer(a, strings.Join(names, " ")), true
	case "lookup":
		parent, name := x.split(args[0])
		return answer(x.ask(&wire.Query{Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: parent, Name: name}}}), "ok"), true
	case "access":
		mask := uint32(0)
		for _, c := range args[1] {
			mask |= map[rune]uint32{'r': MayRead, 'w': MayWrite, 'x': MayExec}[c]
		}
		return answer(x.ask(&wire.Query{Op: &wire.Query_Access{Access: &wire.Access{Ino: x.ino(args[0]), Mask: mask}}}), "ok"), true
	case "getx":
		a := x.ask(&wire.Query{Op: &wire.Query_GetXattr{GetXattr: &wire.GetXattr{Ino: x.ino(args[0]), Name: args[1]}}})
		return answer(a, string(a.GetXattr().GetValue())), true
	case "getacl":
		a := x.ask(&wire.Query{Op: &wire.Query_GetXattr{GetXattr: &wire.GetXattr{Ino: x.ino(args[0]), Name: "system.posix_acl_" + args[1]}}})
		if a.Code != 0 {
			return codeName(a.Code), true
		}
		list, err := acl.Decode(a.GetXattr().Value)
		if err != nil {
			return err.Error(), true
		}
		return list.String(), true
	case "listx":
		a := x.ask(&wire.Query{Op: &wire.Query_ListXattr{ListXattr: &wire.ListXattr{Ino: x.ino(args[0])}}})
		return answer(a, strings.Join(a.GetXattr().GetNames(), " ")), true
	case "extents":
		return x.extents(args[0]), true
	case "block":
		b, err := x.s.Block(number(args[0], 10))
		if err != nil {
			return codeName(uint32(wire.CodeOf(err))), true
		}
		var servers []string
		for _, s := range b.Shards {
			servers = append(servers, fmt.Sprint(s.Server))
		}
		return fmt.Sprintf("refs=%d live=%d freed=%v servers=%s", b.Refs, b.Live, b.FreedIndex != 0, strings.Join(servers, ",")), true
	case "dead":
		blocks, err := x.s.Dead(int64(number(args[0], 10)), 100)
		return blockList(blocks, err), true
	case "degraded":
		blocks, err := x.s.Degraded(0, 100)
		return blockList(blocks, err), true
	case "counts":
		c, err := x.s.Counts()
		if err != nil {
			return err.Error(), true
		}
		return fmt.Sprintf("inodes=%d blocks=%d live=%d degraded=%d freed=%d", c.Inodes, c.Blocks, c.Live, c.Degraded, c.Freed), true
	}
	return "", false
}

func answer(a *wire.Answer, text string) string {
	if a.Code != 0 {
		return codeName(a.Code)
	}
	return text
}

func blockList(blocks []*wire.Block, err error) string {
	if err != nil {
		return err.Error()
	}
	var ids []string
	for _, b := range blocks {
		ids = append(ids, fmt.Sprint(b.Id))
	}
	return strings.Join(ids, " ")
}

// extents shows a file as [OFF,END)=BLOCK+OFFSET pieces, or its inline text.
func (x *script) extents(path string) string {
	a := x.ask(&wire.Query{Op: &wire.Query_GetExtents{GetExtents: &wire.GetExtents{Ino: x.ino(path)}}})
	e := a.GetExtents()
	if a.Code != 0 {
		return codeName(a.Code)
	}
	if e.Inode.HasInline {
		return fmt.Sprintf("%q", e.Inode.Inline)
	}
	parts := []string{}
	for _, ex := range e.Extents {
		parts = append(parts, fmt.Sprintf("%d-%d=%d+%d", ex.Off, end(ex), ex.Block, ex.BlockOff))
	}
	return strings.Join(parts, " ")
}

func (x *script) stat(path string, fields []string) string {
	ino, ok := x.walk(path)
	if !ok {
		return "NotFound"
	}
	in, err := x.s.Inode(ino)
	if err != nil {
		return codeName(uint32(wire.CodeOf(err)))
	}
	a := in.Attr
	all := map[string]string{
		"ino": fmt.Sprint(a.Ino), "mode": fmt.Sprintf("%o", a.Mode&permBits), "type": fmt.Sprintf("%o", a.Mode&sIFMT),
		"nlink": fmt.Sprint(a.Nlink), "uid": fmt.Sprint(a.Uid), "gid": fmt.Sprint(a.Gid), "size": fmt.Sprint(a.Size),
		"allocated": fmt.Sprint(a.Allocated), "atime": fmt.Sprint(a.AtimeNs), "mtime": fmt.Sprint(a.MtimeNs),
		"ctime": fmt.Sprint(a.CtimeNs), "btime": fmt.Sprint(a.BtimeNs), "entries": fmt.Sprint(in.Entries),
		"parent": fmt.Sprint(in.Parent), "acl": fmt.Sprint(in.HasAcl), "symlink": in.Symlink, "rdev": fmt.Sprint(a.Rdev),
	}
	var out []string
	for _, f := range fields {
		out = append(out, all[f])
	}
	return strings.Join(out, " ")
}

// parseACL reads what acl.Parse reads.
func parseACL(t testing.TB, text string) acl.List {
	t.Helper()
	list, err := acl.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
