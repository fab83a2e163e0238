//go:build race

package transport

// The race detector makes moving bytes tens of times slower.
func init() { largest = 4 << 20 }
