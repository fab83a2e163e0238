package offload

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How fast a host's processors are is measured once, so that run times learned on
// one host serve another: one of them runs a fixed piece of work, which touches
// memory, branches and multiplies, a few times; the shortest processor time counts,
// since what else runs on the host only makes it longer.

const (
	// speedReference is how long the work takes on a processor of speed 100, about
	// what a core of an x86 server is at 2 to 3 GHz.
	speedReference = 4 * time.Millisecond
	speedRuns      = 7
	speedStep      = 5 // percent; what is measured is not better than that
	leastSpeed     = 5
	mostSpeed      = 2000
)

// speedOf is the speed of one of this host's processors in percent of the
// reference's. It is kept in dir for as long as the host has processors of the same
// model.
func speedOf(dir string) uint32 {
	file, model := filepath.Join(dir, "speed"), processorModel()
	var speed uint32
	var kept string
	if data, err := os.ReadFile(file); err == nil {
		if n, _ := fmt.Sscanf(string(data), "1 %s %d", &kept, &speed); n == 2 && kept == model && speed >= leastSpeed && speed <= mostSpeed {
			return speed
		}
	}
	speed = measureSpeed(speedWork)
	// If it cannot be kept it is measured again.
	_ = os.WriteFile(file, fmt.Appendf(nil, "1 %s %d\n", model, speed), 0o600)
	return speed
}

// measureSpeed turns the shortest of some runs into a speed.
func measureSpeed(work func() time.Duration) uint32 {
	least := work()
	for range speedRuns - 1 {
		least = min(least, work())
	}
	if least <= 0 {
		return 100 // there is no such clock here
	}
	percent := 100 * float64(speedReference) / float64(least)
	return uint32(min(max(speedStep*int(percent/speedStep+0.5), leastSpeed), mostSpeed))
}

// threadTime is the processor time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// speedWork sorts and hashes 32,768 numbers that are always the same.
func speedWork() time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	list := make([]uint32, 32<<10)
	x := uint32(1)
	for i := range list {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		list[i] = x
	}
	slices.Sort(list)
	h := fnv.New64a()
	var buf [4]byte
	for round := range uint32(4) {
		for _, v := range list {
			v += round
			buf = [4]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
			_, _ = h.Write(buf[:])
		}
	}
	if h.Sum64() == 0 {
		return threadTime() - began + 1 // so that the work has a use
	}
	return threadTime() - began
}

// processorModel is one word for the processors of this host; "unknown" where it
// cannot be read.
func processorModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.Join(strings.Fields(value), "_")
		}
	}
	return "unknown"
}
