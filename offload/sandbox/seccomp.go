package sandbox

import (
	"bytes"
	"encoding/binary"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaceFlags are the CLONE_NEW… flags of clone(2) and unshare(2).
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// denied are system calls that no computation needs, and through which programs
// have come out of sandboxes.
var denied = []uint32{
	unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_QUOTACTL,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_OPEN_BY_HANDLE_AT,
}

// seccompFilter is the program (see seccomp(2)) for bwrap's --seccomp; nil on
// processors that it does not know.
func seccompFilter() []byte {
	var arch uint32
	switch runtime.GOARCH {
	case "amd64":
		arch = unix.AUDIT_ARCH_X86_64
	case "arm64":
		arch = unix.AUDIT_ARCH_AARCH64
	default:
		return nil
	}
	// Offsets in struct seccomp_data; both processors are little-endian.
	const nr, archAt, arg0 = 0, 4, 16
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// jump: skip yes instructions if the comparison holds, else no.
	jump := func(how uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	refuse := func(e unix.Errno) unix.SockFilter { return ret(unix.SECCOMP_RET_ERRNO | uint32(e)) }

	prog := []unix.SockFilter{
		load(archAt),
		jump(unix.BPF_JEQ, arch, 1, 0),
		refuse(unix.ENOSYS), // calls of another architecture, which have other numbers
		load(nr),
		jump(unix.BPF_JGE, 0x40000000, 0, 1),
		refuse(unix.ENOSYS), // x32
		// The flags of clone3 lie in memory, which a filter cannot read: without it
		// programs use clone.
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1),
		refuse(unix.ENOSYS),
	}
	for _, call := range denied {
		prog = append(prog, jump(unix.BPF_JEQ, call, 0, 1), refuse(unix.EPERM))
	}
	prog = append(prog,
		jump(unix.BPF_JEQ, unix.SYS_UNSHARE, 1, 0),
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 3),
		load(arg0),
		jump(unix.BPF_JSET, namespaceFlags, 0, 1),
		refuse(unix.EPERM),
		ret(unix.SECCOMP_RET_ALLOW),
	)
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, prog)
	return out.Bytes()
}
