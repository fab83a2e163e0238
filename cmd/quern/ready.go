package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process that another quern starts tells it over a pipe how its start went:
// "ready", or one sentence that says why not. The end of the pipe without
// either means that it died.
const readyEnv = "QUERN_READY_FD"

// startReport is the writing end, of the started process.
type startReport struct{ w *os.File }

// openStartReport takes over the pipe that the starting process passed, if it
// did. All methods work without one.
func openStartReport() *startReport {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	os.Unsetenv(readyEnv)
	if err != nil || fd < 3 {
		return &startReport{}
	}
	unix.CloseOnExec(fd)
	return &startReport{w: os.NewFile(uintptr(fd), "ready")}
}

func (r *startReport) ready() { r.send("ready") }

// failed reports err unless the start had been reported before.
func (r *startReport) failed(err error) {
	if err != nil {
		r.send(sentence(err))
	}
}

func (r *startReport) send(line string) {
	if r.w == nil {
		return
	}
	fmt.Fprintln(r.w, line)
	r.w.Close()
	r.w = nil
}

var errDied = errors.New("it ended before it was ready")

// waitReady reads the report of a started process.
func waitReady(r *os.File, limit time.Duration) error {
	r.SetReadDeadline(time.Now().Add(limit))
	raw, err := io.ReadAll(io.LimitReader(r, 4096))
	line := strings.TrimSpace(string(raw))
	switch {
	case line == "ready":
		return nil
	case line != "":
		return errors.New(line)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it was not ready within %v", limit)
	}
	return errDied
}
