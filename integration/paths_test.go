package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPathsExist: docs/paths.md names files and functions that are there.
func TestPathsExist(t *testing.T) {
	text, err := os.ReadFile("../docs/paths.md")
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]map[string]bool{} // by file
	all := regexp.MustCompile("`([a-z0-9/_]+\\.go): ([^`]+)`").FindAllStringSubmatch(string(text), -1)
	if len(all) < 50 {
		t.Errorf("%d functions are named: are they written in another way?", len(all))
	}
	for _, m := range all {
		file, name := m[1], m[2]
		if functions[file] == nil {
			var err error
			if functions[file], err = functionsOf(filepath.Join("..", file)); err != nil {
				t.Error(err)
				functions[file] = map[string]bool{}
			}
		}
		if !functions[file][name] {
			t.Errorf("docs/paths.md: %s has no %s", file, name)
		}
	}
}

// functionsOf names the functions of a file: F, T.F or (*T).F.
func functionsOf(file string) (map[string]bool, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := fn.Name.Name
		if fn.Recv != nil {
			switch r := fn.Recv.List[0].Type.(type) {
			case *ast.StarExpr:
				name = fmt.Sprintf("(*%s).%s", r.X, name)
			default:
				name = fmt.Sprintf("%s.%s", r, name)
			}
		}
		out[name] = true
	}
	return out, nil
}

// TestDecisionsAreListed: docs/decisions/README.md has each decision, by its title.
func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile("../docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../docs/decisions/[0-9]*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if n := strings.Count(string(index), "\n- "); n != len(files) {
		t.Errorf("docs/decisions/README.md lists %d decisions of %d", n, len(files))
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		if line := fmt.Sprintf("- [%s](%s)\n", title, filepath.Base(f)); !strings.Contains(string(index), line) {
			t.Errorf("docs/decisions/README.md lacks %q", line)
		}
	}
}
