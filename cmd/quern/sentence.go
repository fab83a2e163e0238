package main

import (
	"errors"
	"strings"
	"syscall"

	"quernfs/internal/wire"
)

// advice says what to do about errors whose own text only says what happened.
var advice = []struct {
	is   error
	text string
}{
	{wire.Forbidden, "the certificate's role does not allow this: use one that `quern cert` made for it"},
	{wire.TooFew, "start more chunk servers, or use a smaller policy"},
	{wire.NoSpace, "add chunk servers or free space on theirs"},
	{syscall.ENOSPC, "free space on this disk, or use a data directory on another one"},
	{syscall.EADDRINUSE, "another process uses this port: end it, or change the address in cluster.json"},
	{syscall.EROFS, "use a data directory on a filesystem that can be written"},
}

// sentence is the one line that the user reads about err.
func sentence(err error) string {
	text := err.Error()
	for _, a := range advice {
		if errors.Is(err, a.is) && !strings.Contains(text, a.text) {
			text += " (" + a.text + ")"
			break
		}
	}
	// An error that was joined of several has a line each.
	return strings.Join(strings.Split(strings.TrimSpace(text), "\n"), "; ")
}
