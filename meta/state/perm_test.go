package state

import (
	"testing"

	"quernfs/internal/wire"
)

func inodeOf(mode, uid, gid uint32) *wire.Inode {
	return &wire.Inode{Attr: &wire.Attr{Mode: mode, Uid: uid, Gid: gid}}
}

func TestAccess(t *testing.T) {
	owner, member, second, other := &wire.Cred{Uid: 1, Gid: 9}, &wire.Cred{Uid: 2, Gid: 5}, &wire.Cred{Uid: 3, Gid: 9, Groups: []uint32{5}}, &wire.Cred{Uid: 4, Gid: 9}
	root := &wire.Cred{}
	for _, test := range []struct {
		mode uint32
		acl  string
		cred *wire.Cred
		mask uint32
		want bool
	}{
		{sIFREG | 0o640, "", owner, MayRead | MayWrite, true},
		{sIFREG | 0o640, "", owner, MayExec, false},
		{sIFREG | 0o640, "", member, MayRead, true},
		{sIFREG | 0o640, "", second, MayRead, true},
		{sIFREG | 0o640, "", member, MayWrite, false},
		{sIFREG | 0o640, "", other, MayRead, false},
		{sIFREG | 0o047, "", owner, MayRead, false}, // the first class that fits decides
		{sIFREG | 0o047, "", member, MayWrite, false},
		{sIFREG | 0o047, "", other, 7, true},
		{sIFREG, "", root, MayRead | MayWrite, true},
		{sIFREG, "", root, MayExec, false},
		{sIFREG | 0o001, "", root, MayExec, true},
		{sIFDIR, "", root, 7, true},
		{sIFREG, "", nil, MayWrite, true},
		{sIFREG, "", other, 0, true},

		{sIFREG | 0o660, "u:rw,U4:r,g:rw,m:rw,o:-", other, MayRead, true},
		{sIFREG | 0o660, "u:rw,U4:r,g:rw,m:rw,o:-", other, MayWrite, false},
		{sIFREG | 0o640, "u:rw,U4:rw,g:rw,m:r,o:-", other, MayWrite, false}, // the mask
		{sIFREG | 0o640, "u:rw,U4:rw,g:rw,m:r,o:-", member, MayWrite, false},
		{sIFREG | 0o660, "u:-,g:rw,o:-", owner, MayWrite, true}, // the owner goes by the bits
		{sIFREG | 0o660, "u:rw,g:-,G9:rw,m:rw,o:-", other, MayWrite, true},
		{sIFREG | 0o660, "u:rw,g:-,G9:rw,m:rw,o:-", second, MayWrite, true}, // any group that grants it
		{sIFREG | 0o666, "u:rw,g:-,G8:rw,m:rw,o:rw", member, MayWrite, false},
		{sIFREG | 0o666, "u:rw,g:-,G8:rw,m:rw,o:rw", other, MayWrite, true},
		{sIFREG | 0o606, "u:rw,U4:-,g:-,m:-,o:rw", other, MayWrite, true}, // an empty mask: the bits
	} {
		var acl []byte
		if test.acl != "" {
			acl = parseACL(t, test.acl).Encode()
		}
		if got := Access(inodeOf(test.mode, 1, 5), acl, test.cred, test.mask); got != test.want {
			t.Errorf("mode %o acl %q cred %v mask %o: %v", test.mode, test.acl, test.cred, test.mask, got)
		}
	}
}

func TestInherit(t *testing.T) {
	plain, setgid := inodeOf(sIFDIR|0o777, 0, 50), inodeOf(sIFDIR|0o2777, 0, 50)
	user, member := &wire.Cred{Uid: 1, Gid: 1}, &wire.Cred{Uid: 1, Gid: 1, Groups: []uint32{50}}
	for _, test := range []struct {
		dir      *wire.Inode
		cred     *wire.Cred
		mode     uint32
		gid      uint32
		wantMode uint32
	}{
		{plain, user, sIFREG | 0o6755, 1, sIFREG | 0o6755},
		{plain, user, sIFDIR | 0o7755, 1, sIFDIR | 0o1755},
		{setgid, user, sIFDIR | 0o755, 50, sIFDIR | 0o2755},
		{setgid, user, sIFREG | 0o2755, 50, sIFREG | 0o755},
		{setgid, user, sIFREG | 0o2745, 50, sIFREG | 0o2745},
		{setgid, member, sIFREG | 0o2755, 50, sIFREG | 0o2755},
		{setgid, &wire.Cred{}, sIFREG | 0o2755, 50, sIFREG | 0o2755},
	} {
		if gid, mode := Inherit(test.dir, test.mode, test.cred); gid != test.gid || mode != test.wantMode {
			t.Errorf("%o in %o: group %d mode %o", test.mode, test.dir.Attr.Mode, gid, mode)
		}
	}
}

func TestKillSuid(t *testing.T) {
	for _, test := range []struct {
		mode   uint32
		member bool
		want   uint32
	}{
		{sIFREG | 0o6755, true, sIFREG | 0o755},
		{sIFREG | 0o6745, true, sIFREG | 0o2745},
		{sIFREG | 0o6745, false, sIFREG | 0o745},
		{sIFDIR | 0o6755, false, sIFDIR | 0o6755},
		{sIFREG | 0o755, false, sIFREG | 0o755},
	} {
		if got := KillSuid(test.mode, test.member); got != test.want {
			t.Errorf("%o member %v: %o", test.mode, test.member, got)
		}
	}
}
