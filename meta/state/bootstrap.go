package state

import (
	"cmp"

	"quernfs/internal/block"
	"quernfs/internal/wire"
)

// bootstrap makes the tree of a new cluster:
//
//	/                  RootIno
//	/.compute          ComputeIno
//	/.compute/queue    QueueIno     anyone may submit a job; only its owner removes it
//	/.compute/kernels  KernelsIno
//	/.compute/rules    RulesIno
//	/.compute/users    UsersIno     anyone may make the directory that has his number
//	(no name)          OutputsIno   the output directories of the jobs
func (t *tx) bootstrap(op *wire.Bootstrap) *wire.Result {
	if t.inode(wire.RootIno) != nil {
		return failf(wire.Exists, "the cluster has been set up before")
	}
	policy := block.FromWire(op.Policy)
	if err := policy.Validate(); err != nil {
		return failf(wire.Invalid, "%v", err)
	}
	made := func(ino uint64, mode uint32, parent uint64, subdirs, entries int) *wire.Inode {
		in := &wire.Inode{
			Attr: &wire.Attr{
				Ino: ino, Mode: sIFDIR | mode, Nlink: uint32(2 + subdirs), Uid: op.RootUid, Gid: op.RootGid,
				Size: dirSize, AtimeNs: t.now, MtimeNs: t.now, CtimeNs: t.now, BtimeNs: t.now, Version: 1,
			},
			Policy: policy.ToWire(), Parent: parent, Entries: uint64(entries),
		}
		t.putInode(in)
		t.counts[countInodes]++
		return in
	}
	root := made(wire.RootIno, cmp.Or(op.RootMode&permBits, 0o755), wire.RootIno, 1, 1)
	made(wire.ComputeIno, 0o755, wire.RootIno, 4, 4)
	made(wire.QueueIno, 0o1777, wire.ComputeIno, 0, 0)
	made(wire.KernelsIno, 0o755, wire.ComputeIno, 0, 0)
	made(wire.RulesIno, 0o755, wire.ComputeIno, 0, 0)
	made(wire.UsersIno, usersMode, wire.ComputeIno, 0, 0)
	made(wire.OutputsIno, 0o755, wire.OutputsIno, 0, 0)
	t.putDentry(wire.RootIno, ".compute", wire.ComputeIno, sIFDIR)
	t.putDentry(wire.ComputeIno, "queue", wire.QueueIno, sIFDIR)
	t.putDentry(wire.ComputeIno, "kernels", wire.KernelsIno, sIFDIR)
	t.putDentry(wire.ComputeIno, "rules", wire.RulesIno, sIFDIR)
	t.putDentry(wire.ComputeIno, "users", wire.UsersIno, sIFDIR)
	t.set(paramKey(nil, pPolicy), policy.ToWire())
	t.setRaw(paramKey(nil, pCluster), op.ClusterId)
	return &wire.Result{Inode: root}
}
