package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers has the packages of each part of the module, and which parts it may
// import: imports point down, and the services do not import each other.
// Where only a subpackage may be used (the client of a service), it is named.
var layers = map[string][]string{
	"cmd":                {"*"},
	"integration":        {"*"},
	"fs":                 {"fs", "meta/client", "chunkd", "internal"},
	"meta":               {"meta", "internal"},
	"meta/client":        {"meta/client", "internal"},
	"chunkd":             {"chunkd", "internal"},
	"offload":            {"offload", "meta/client", "internal"},
	"edgecache":          {"edgecache", "meta/client", "chunkd", "internal"},
	"internal/acl":       {},
	"internal/rawtext":   {},
	"internal/wire":      {},
	"internal/traffic":   {},
	"internal/block":     {"internal/wire"},
	"internal/transport": {"internal/wire"},
}

// TestImports: a change that turns an import upward, or joins two services,
// fails here. README has the table in words.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "quernfs/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		part := partOf(strings.TrimPrefix(p.ImportPath, "quernfs/"))
		allowed, known := layers[part]
		if !known {
			t.Errorf("%s belongs to no part of the module (docs and this table name them)", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, "quernfs/")
			if ours && !mayImport(allowed, to) {
				t.Errorf("%s imports %s: imports point down (README, the table of packages)", p.ImportPath, imported)
			}
		}
	}
}

// partOf finds the longest part that holds a package.
func partOf(pkg string) string {
	best := ""
	for part := range layers {
		if (pkg == part || strings.HasPrefix(pkg, part+"/")) && len(part) > len(best) {
			best = part
		}
	}
	return best
}

func mayImport(allowed []string, pkg string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == "*" || pkg == a || strings.HasPrefix(pkg, a+"/")
	})
}
