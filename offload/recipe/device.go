package recipe

import "time"

// Device is what recipes run on. One goroutine uses it and what belongs to it.
type Device interface {
	// Name is what people call it.
	Name() string
	// MaxAlloc is how many bytes a buffer can have.
	MaxAlloc() int64
	// Program makes the file of a variant ready to run. What is wrong with the
	// file is a *BuildError. The device keeps the program and may reuse it.
	Program(file []byte) (Program, error)
	// Buffer makes a buffer of size bytes, at least 1. Its content is not
	// defined.
	Buffer(size int) (Buffer, error)
	// Failed says whether err, from the device, is a fault of the device or its
	// driver, and not one of kernel, manifest or input.
	Failed(err error) bool
}

// Program is a file of kernels, ready to run.
type Program interface {
	Kernel(name string) (Kernel, error)
}

// Kernel is one entry point.
type Kernel interface {
	Args() int     // how many arguments it takes
	MaxGroup() int // work items that a group of it may have
	SetBuffer(i int, b Buffer) error
	// SetScalar sets a number, little-endian.
	SetScalar(i int, value []byte) error
	// Run runs it over the global size, one to three dimensions, in groups of the
	// local size (nil: as the device likes), waits for its end, and says how long
	// it ran.
	Run(global, local []int) (time.Duration, error)
	Close() error
}

// Buffer is memory of the device.
type Buffer interface {
	Size() int // bytes
	// Write copies p to the beginning of the buffer, Read the beginning of the
	// buffer to p.
	Write(p []byte) error
	Read(p []byte) error
	Zero() error
	Close() error
}

// BuildError is what a compiler has to say about a file.
type BuildError struct{ Log string }

func (e *BuildError) Error() string { return "the file does not build: " + e.Log }
