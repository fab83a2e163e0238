//go:build !(linux && (amd64 || arm64))

package opencl

import "errors"

// Elsewhere there is no binding: Open says so, and nothing else is reached.

type (
	Library struct{}
	Device  struct{ Info }
)

// Open fails.
func Open(string) (*Library, error) {
	return nil, errors.New("OpenCL is not supported by quern on this kind of machine")
}

// Devices finds none.
func (l *Library) Devices() ([]*Device, error) { return nil, nil }
