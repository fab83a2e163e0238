package sandbox

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"quernfs/internal/wire"
)

// Offer is what this host can do, as others are told.
func (h *Host) Offer() *wire.ExecOffer {
	o := &wire.ExecOffer{
		AnyUser: h.root, Uid: uint32(os.Geteuid()), LimitsCpu: h.limits.CPU != ByNobody, LimitsMemory: h.limits.Memory != ByRlimit,
		Cpus: uint32(runtime.NumCPU()),
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		o.Memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	for _, g := range h.gpus.all {
		o.Gpus = append(o.Gpus, g.Memory)
	}
	return o
}
