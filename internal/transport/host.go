package transport

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// HostID identifies this machine, from one boot to the next: two processes with
// the same HostID can meet at a Unix socket, if they see the same files.
func HostID() string {
	if as := pretended.Load(); as != nil {
		return machine() + "/" + *as
	}
	return machine()
}

var pretended atomic.Pointer[string]

// PretendHost has this process count as one of another host called name: what
// others on this machine offer is reached over the network only, except by those
// that pretend the same. To be called before anything is served or dialed.
func PretendHost(name string) { pretended.Store(&name) }

var machine = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no short cuts between processes then
	}
	return strings.TrimSpace(string(b))
})
