//go:build !race

package data

import "syscall"

func mapBuffer() []byte {
	buf, err := syscall.Mmap(-1, 0, bufferSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, bufferSize) // mappings are used up
	}
	return buf
}

// cool gives the memory below a mapped buffer back to the system. It is only a
// hint: where it fails the memory stays.
func cool(buf []byte) { syscall.Madvise(buf, syscall.MADV_DONTNEED) }
