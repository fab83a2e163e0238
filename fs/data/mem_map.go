//go:build !race

package data

import "syscall"

func mapBuffer() []byte {
	buf, err := syscall.Mmap(-1, 0, bufferSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, bufferSize) // the address space is used up: unmapBuffer leaves it to the collector
	}
	return buf
}

func unmapBuffer(buf []byte) { syscall.Munmap(buf) } // fails for a slice that make returned, which is right
