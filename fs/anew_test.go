package fs

import (
	"os"
	"path/filepath"
	"testing"
)

// Another mount has renamed each part of a path. The kernel begins an operation
// anew once only: what it was made to forget is no reason to.
func TestPathRenamedAtEveryLevel(t *testing.T) {
	a, b := two(t)
	must(t, os.MkdirAll(filepath.Join(a, "x/p/u"), 0o755))
	write1(t, filepath.Join(a, "x/p/u/f"), "text")
	expect(t, filepath.Join(b, "x/p/u/f"), "text")

	must(t, os.Rename(filepath.Join(a, "x"), filepath.Join(a, "y")))
	must(t, os.Rename(filepath.Join(a, "y/p"), filepath.Join(a, "y/q")))
	must(t, os.Rename(filepath.Join(a, "y/q/u"), filepath.Join(a, "y/q/v")))
	must(t, os.Rename(filepath.Join(a, "y/q/v/f"), filepath.Join(a, "y/q/v/g")))
	expect(t, filepath.Join(b, "y/q/v/g"), "text")
}
