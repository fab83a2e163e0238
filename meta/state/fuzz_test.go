package state

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// FuzzApply: commands of any bytes never make Apply or Query panic or fail,
// and leave a state without contradictions.
func FuzzApply(f *testing.F) {
	seed := func(ops ...*wire.Command) {
		b, err := proto.Marshal(&wire.Batch{Commands: ops})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	name := &wire.Command{Session: 1, Seq: 1, Op: &wire.Command_Create{Create: &wire.Create{Parent: 1, Name: "f", Mode: sIFREG | 0o644}}}
	ino := wire.FirstIno
	seed(name,
		&wire.Command{Op: &wire.Command_Commit{Commit: &wire.Commit{
			Blocks: []*wire.Block{signed(benchKey, 1, 2, 1, 100)},
			Files:  []*wire.FileUpdate{{Ino: ino, Extents: []*wire.Extent{{Len: 100, Block: 1}}}},
		}}},
		&wire.Command{Op: &wire.Command_Clone{Clone: &wire.Clone{Src: ino, Dst: ino, DstOff: 100, Len: 50}}},
		&wire.Command{Op: &wire.Command_Fallocate{Fallocate: &wire.Fallocate{Ino: ino, Mode: 3, Off: 10, Len: 20}}},
		&wire.Command{Op: &wire.Command_SetAttr{SetAttr: &wire.SetAttr{Ino: ino, Mask: 511, Size: 20}}},
		&wire.Command{Op: &wire.Command_Link{Link: &wire.Link{Ino: ino, NewParent: 1, NewName: "g"}}},
		&wire.Command{Op: &wire.Command_Rename{Rename: &wire.Rename{Parent: 1, Name: "g", NewParent: 1, NewName: "h", Flags: 2}}},
		&wire.Command{Session: 1, Seq: 2, Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: 1, Name: "f", OpenSessions: []uint64{1}}}},
		&wire.Command{Op: &wire.Command_EndSession{EndSession: &wire.EndSession{Id: 1}}})
	seed(&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{Job: &wire.Job{Name: "j"}, Tasks: []*wire.Task{{}, nil}}}},
		&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: 1, Attempt: 1, State: "succeeded"}, OutIno: 3}}},
		&wire.Command{Op: &wire.Command_UpdateJob{UpdateJob: &wire.UpdateJob{Id: 1, State: "cancelled"}}})
	seed(name,
		&wire.Command{Op: &wire.Command_PutRefusal{PutRefusal: &wire.PutRefusal{Name: "j", Ino: ino, Text: "line 1"}}},
		&wire.Command{Op: &wire.Command_SubmitJob{SubmitJob: &wire.SubmitJob{About: []uint64{ino}, Tasks: []*wire.Task{{}}, Job: &wire.Job{Name: "j",
			Notify: &wire.Entry{Parent: 1, Name: "n"}, Source: &wire.Source{Parent: 1, Name: "f", Ino: ino, Drop: wire.Drop_ALWAYS}}}}},
		&wire.Command{Op: &wire.Command_UpdateTask{UpdateTask: &wire.UpdateTask{Task: &wire.Task{Job: 1, Attempt: 1, State: "succeeded"}, SourceSessions: []uint64{1}}}},
		&wire.Command{Op: &wire.Command_ClearRefusal{ClearRefusal: &wire.ClearRefusal{Name: "j", Ino: ino}}})
	seed(&wire.Command{Session: 1, Op: &wire.Command_ReserveInodes{ReserveInodes: &wire.ReserveInodes{Count: 3}}},
		&wire.Command{Op: &wire.Command_SetXattr{SetXattr: &wire.SetXattr{Ino: 1, Name: PolicyXattr, Value: []byte("4+2")}}},
		&wire.Command{Op: &wire.Command_SetXattr{SetXattr: &wire.SetXattr{Ino: 1, Name: acl.Default, Value: parseACL(f, "u:rwx,g:rx,o:r").Encode()}}},
		&wire.Command{Op: &wire.Command_PutNode{PutNode: &wire.PutNode{Node: &wire.Node{Name: "n"}}}},
		&wire.Command{Op: &wire.Command_LoseShard{LoseShard: &wire.LoseShard{Block: 1, Server: 1}}},
		&wire.Command{Op: &wire.Command_PurgeBlocks{PurgeBlocks: &wire.PurgeBlocks{Blocks: []uint64{1}}}},
		&wire.Command{Op: &wire.Command_Batch{Batch: &wire.Batch{Commands: []*wire.Command{name}}}})

	f.Fuzz(func(t *testing.T, b []byte) {
		batch := new(wire.Batch)
		if proto.Unmarshal(b, batch) != nil || len(batch.Commands) > 200 {
			return
		}
		s := openMem(t, vfs.NewMem())
		defer s.Close()
		log := []Entry{
			{Command: &wire.Command{Op: &wire.Command_Bootstrap{Bootstrap: &wire.Bootstrap{Policy: &wire.Policy{K: 2, M: 1}}}}},
			{Command: &wire.Command{Op: &wire.Command_OpenSession{OpenSession: new(wire.OpenSession)}}},
			{Command: &wire.Command{Op: &wire.Command_ReserveBlocks{ReserveBlocks: &wire.ReserveBlocks{Count: 1000}}}},
		}
		for _, c := range batch.Commands {
			log = append(log, Entry{Command: c})
		}
		for i := range log {
			log[i].Index, log[i].Term = uint64(i+1), 1
		}
		if _, err := s.Apply(log); err != nil {
			t.Fatal(err)
		}
		checkState(t, s)
	})
}

func FuzzQuery(f *testing.F) {
	s := openMem(f, vfs.NewMem())
	f.Cleanup(func() { s.Close() })
	newFeeder(f, s, 1)
	for _, q := range []*wire.Query{
		{Op: &wire.Query_Lookup{Lookup: &wire.Lookup{Parent: 1, Name: "x"}}},
		{Op: &wire.Query_ReadDir{ReadDir: &wire.ReadDir{Ino: 1, Plus: true, Limit: 1}}},
		{Op: &wire.Query_GetXattr{GetXattr: &wire.GetXattr{Ino: 1, Name: PolicyXattr}}},
		{Op: &wire.Query_GetExtents{GetExtents: &wire.GetExtents{Ino: 1}}},
		{Op: &wire.Query_GetBlocks{GetBlocks: &wire.GetBlocks{Ids: []uint64{1}}}},
		{Op: &wire.Query_ListJobs{ListJobs: &wire.ListJobs{}}},
		{Op: &wire.Query_ListRefusals{ListRefusals: &wire.ListRefusals{Ino: 1}}},
		{Op: &wire.Query_ListAccounts{ListAccounts: &wire.ListAccounts{Uid: 1, SinceNs: 1}}},
		{Op: &wire.Query_ListUsage{ListUsage: &wire.ListUsage{Uid: 1, Since: -1, After: make([]byte, 8)}}},
		{Op: &wire.Query_Access{Access: &wire.Access{Ino: 1, Mask: 7}}},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(wire.Query)
		if proto.Unmarshal(b, q) != nil {
			return
		}
		if _, err := s.Query(q); err != nil {
			t.Fatal(err)
		}
	})
}
