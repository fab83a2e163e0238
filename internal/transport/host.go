package transport

import (
	"os"
	"strings"
	"sync"
)

// HostID identifies this machine, from one boot to the next: two processes with
// the same HostID can meet at a Unix socket, if they see the same files.
var HostID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no short cuts between processes then
	}
	return strings.TrimSpace(string(b))
})
