package worker

import (
	"time"

	"golang.org/x/sys/unix"
)

// pidfd refers to a process whatever becomes of its number.
func pidfd(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

// endsWithin waits for the process to end.
func endsWithin(fd int, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds())+1)
		if err == nil && n == 1 {
			return true
		}
	}
	return false
}
