package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goSource names a part of the Go toolchain's source to work on: all of it in
// the long version.
func goSource(t *testing.T) string {
	t.Helper()
	if long {
		return goRoot(t)
	}
	return filepath.Join(goRoot(t), "net")
}

// goRoot is all of the Go toolchain's source.
func goRoot(t *testing.T) string {
	t.Helper()
	src := filepath.Join(strings.TrimSpace(shell(t, ".", "go env GOROOT")), "src")
	if real, err := filepath.EvalSymlinks(src); err == nil {
		src = real
	}
	return src
}

// TestApps is real input on a cluster of processes: 3 metadata servers, 6
// chunk servers, 4+2.
func TestApps(t *testing.T) {
	c := startCluster(t, "--processes", "--policy", "4+2")
	t.Run("copy", func(t *testing.T) { testCopy(t, c) })
	t.Run("go", func(t *testing.T) { testGo(t, c) })
	t.Run("git", func(t *testing.T) { testGit(t, c) })
	t.Run("sqlite", func(t *testing.T) { testSQLite(t, c) })
	t.Run("rsync", func(t *testing.T) { testRsync(t, c) })
	t.Run("remount", func(t *testing.T) {
		c.stop()
		c.start()
		shell(t, c.mnt, "diff -r "+goSource(t)+" copy")
	})
}

func testCopy(t *testing.T, c *cluster) {
	src := goSource(t)
	shell(t, c.mnt, "cp -a "+src+" copy && diff -r "+src+" copy")
	// Modes, owners and times too: nothing that rsync would change.
	if out := shell(t, c.mnt, "find copy -printf '%P %m %U %G %T@ %y\\n' | sort > /dev/shm/quern-b.$$; cd "+src+" && find . -printf '%P %m %U %G %T@ %y\\n' | sort | diff - /dev/shm/quern-b.$$; rm /dev/shm/quern-b.$$"); out != "" {
		t.Errorf("attributes differ:\n%s", tail(out))
	}
}

func testGo(t *testing.T, c *cluster) {
	// A module with packages, tests and a linked program, built from nothing
	// with its cache inside the mount.
	dir := filepath.Join(c.mnt, "module")
	if err := os.MkdirAll(filepath.Join(dir, "words"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "go.mod"), "module example.org/words\n\ngo 1.24\n")
	writeFile(t, filepath.Join(dir, "words", "words.go"), `package words

import (
	"bufio"
	"io"
)

// Count counts words.
func Count(r io.Reader) (n int, err error) {
	s := bufio.NewScanner(r)
	s.Split(bufio.ScanWords)
	for s.Scan() {
		n++
	}
	return n, s.Err()
}
`)
	writeFile(t, filepath.Join(dir, "words", "words_test.go"), `package words

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	if n, err := Count(strings.NewReader("a mill for  grain\n")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
}
`)
	writeFile(t, filepath.Join(dir, "main.go"), `package main

import (
	"fmt"
	"os"

	"example.org/words/words"
)

func main() {
	n, err := words.Count(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n)
}
`)
	env := []string{"GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0"}
	if long {
		// The compiler's whole output goes through the mount as well.
		env = append(env, "GOCACHE="+filepath.Join(c.mnt, "gocache"))
	}
	shell(t, dir, "go vet ./... && go build -o prog . && go test ./...", env...)
	if out := shell(t, dir, "echo one two three | ./prog"); strings.TrimSpace(out) != "3" {
		t.Errorf("the program that was built in the mount says %q", out)
	}
}

func testGit(t *testing.T, c *cluster) {
	needTool(t, "git")
	here, err := os.Getwd() // go test runs in the package's directory
	if err != nil {
		t.Fatal(err)
	}
	repo := filepath.Dir(here)
	if _, err := os.Stat(filepath.Join(repo, ".git")); err != nil {
		t.Skip("needs the repository that this source is in, to clone it")
	}
	shell(t, c.mnt, "git -c safe.directory='*' clone -q --no-hardlinks "+repo+" repo")
	shell(t, filepath.Join(c.mnt, "repo"), `git fsck --full --strict
git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m one
git gc -q
git fsck --full
test -z "$(git status --porcelain)"`)
}

func testSQLite(t *testing.T, c *cluster) {
	needTool(t, "sqlite3")
	inserts := "1000"
	if long {
		inserts = "10000"
	}
	for _, mode := range []string{"wal", "delete"} {
		db := filepath.Join(c.mnt, mode+".db")
		// One transaction, and so one fsync, for each insert of the first part.
		out := shell(t, c.mnt, `{
echo "PRAGMA journal_mode=`+mode+`; PRAGMA synchronous=FULL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"
for i in $(seq 1 `+inserts+`); do echo "INSERT INTO t(v) VALUES('row $i '||hex(randomblob(50)));"; done
echo "SELECT count(*) FROM t; PRAGMA integrity_check;"
} | sqlite3 `+db)
		lines := strings.Fields(out)
		if len(lines) < 2 || lines[len(lines)-1] != "ok" || lines[len(lines)-2] != inserts {
			t.Errorf("journal_mode=%s: %q", mode, tail(out))
		}
	}
}

func testRsync(t *testing.T, c *cluster) {
	needTool(t, "rsync")
	src := goSource(t)
	shell(t, c.mnt, "rsync -a "+src+"/ synced/")
	out := shell(t, c.mnt, "rsync -a --checksum --itemize-changes "+src+"/ synced/")
	if strings.TrimSpace(out) != "" {
		t.Errorf("the second rsync still finds something to do:\n%s", tail(out))
	}
}
