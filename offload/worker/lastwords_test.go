package worker

import (
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	long := strings.Repeat("x", 5<<10)
	for text, want := range map[string]string{
		"":                          "",
		"quern-opencl: no device\n": "quern-opencl: no device",
		"one\nSIGABRT: abort\nPC=0x1 m=0 sigcode=18\n\ngoroutine 0 [idle]:\nrax 0x0\n": "SIGABRT: abort",
		"fatal error: out of memory\n\ngoroutine 1:\n":                                 "fatal error: out of memory",
		"panic: oops [recovered]\n\ngoroutine 1:\n":                                    "panic: oops [recovered]",
		long + "end": long[:4<<10-3] + "end",
	} {
		if got := lastWords(text); got != want {
			t.Errorf("%.60q: %.60q", text, got)
		}
	}
}
