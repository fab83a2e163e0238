package worker

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// trespasser tries what a module must not be able to do, and prints what it
// could.
const trespasser = `package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
)

func main() {
	for what, try := range map[string]func() error{
		"write an input":   func() error { return os.WriteFile("/in/a", []byte("x"), 0o644) },
		"make an input":    func() error { return os.WriteFile("/in/b", []byte("x"), 0o644) },
		"make a file":      func() error { return os.WriteFile("/x", []byte("x"), 0o644) },
		"write to /tmp":    func() error { return os.WriteFile("/tmp/x", []byte("x"), 0o644) },
		"make a directory": func() error { return os.Mkdir("/in/d", 0o755) },
		"remove an input":  func() error { return os.Remove("/in/a") },
		"rename an input":  func() error { return os.Rename("/in/a", "/in/b") },
		"cut an input":     func() error { return os.Truncate("/in/a", 0) },
		"read /etc/passwd": func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"leave /in":        func() error { _, err := os.ReadFile("/in/../etc/passwd"); return err },
		"start a program":  func() error { return exec.Command("/bin/true").Run() },
		"dial":             func() error { _, err := net.Dial("tcp", "127.0.0.1:22"); return err },
	} {
		if try() == nil {
			fmt.Println("it could", what)
		}
	}
	data, err := os.ReadFile("/in/a")
	fmt.Println(string(data), err)
}
`

// TestFences: a module sees its inputs, and writes nowhere but to its streams.
func TestFences(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the standard library for WASI, if that has not been done yet")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command, to build a module")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": trespasser, "go.mod": "module trespasser\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", "k.wasm")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "k.wasm")
	var stdout bytes.Buffer
	exit, err := start(t).Run(t.Context(), &Task{
		Run: Run{Module: file, Digest: digestOf(file), Memory: 256 << 20, Args: []string{"k"}},
		Inputs: []Input{{Path: "/a", Size: 4, ReadAt: func(_ context.Context, p []byte, off int64) (int, error) {
			return bytes.NewReader([]byte("text")).ReadAt(p, off)
		}}},
		Stdout: &stdout, Stderr: os.Stderr,
	})
	if err != nil || exit.Code != 0 || stdout.String() != "text <nil>\n" {
		t.Errorf("%+v, %v: %s", exit, err, &stdout)
	}
}
