package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestCodes walks the constants of code.go: each but OK has its row, with an errno,
// a text and whether it may pass.
func TestCodes(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" || len(spec.Values) == 0 {
			return true
		}
		number, err := strconv.Atoi(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(spec.Names[0].Name, err)
		}
		found++
		row, ok := codes[Code(number)]
		if complete := ok && row.errno != 0 && row.text != "" && (row.fate == final || row.fate == passes); !complete && Code(number) != OK {
			t.Errorf("%s has the row %+v", spec.Names[0].Name, row)
		}
		return true
	})
	if found != len(codes)+1 || found < 30 {
		t.Errorf("%d constants, %d rows", found, len(codes))
	}
	for c, want := range map[Code]bool{Unavailable: true, NoSpace: true, NameTooLong: false, Internal: false, OK: false, 77: false} {
		if c.MayPass() != want {
			t.Errorf("%v may pass: %v", c, !want)
		}
	}
}
