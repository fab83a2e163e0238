package sandbox

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace names the pid namespace of a process.
func namespace(pid int) string {
	ns, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	return ns
}

// members are the processes of a pid namespace other than its first.
func members(ns string, first int) (pids []int) {
	if ns == "" {
		return nil
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err == nil && pid != first && namespace(pid) == ns {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signal sends sig to every process of a pid namespace but its first. A process
// is held by a pidfd before it is looked at again, so that nobody else who has
// been given its number is hit.
func signal(ns string, first int, sig unix.Signal) {
	for _, pid := range members(ns, first) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if namespace(pid) == ns {
			_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		unix.Close(fd)
	}
}

// children are the processes that a process, which has not been reaped, has
// started itself.
func children(parent int) (pids []int) {
	names, _ := os.ReadDir("/proc")
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + n.Name() + "/stat")
		// PID (NAME) STATE PPID …, and the name may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mark is the variable in the environment of bwrap that says whose it is.
func (h *Host) mark(agent int) string {
	return markName + strconv.Itoa(agent) + ":" + h.cfg.Dir
}

const markName = "QUERN_SANDBOX="

// endStrays ends what agents that died have left: a bwrap whose monitor was
// killed before it let it go on waits for ever, and nothing else of it does.
func (h *Host) endStrays() {
	names, _ := os.ReadDir("/proc")
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + n.Name() + "/environ")
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			agent, dir, ok := strings.Cut(strings.TrimPrefix(string(kv), markName), ":")
			if !ok || !bytes.HasPrefix(kv, []byte(markName)) || dir != h.cfg.Dir {
				continue
			}
			if _, err := os.Stat("/proc/" + agent); os.IsNotExist(err) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}
