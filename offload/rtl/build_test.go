package rtl

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadDesigns: what is wrong with a kernel is told in the words of the tools.
func TestBadDesigns(t *testing.T) {
	if _, err := Build(t.Context(), Design{Width: MaxWidth + 1}); err == nil {
		t.Error("a beat that is too wide is taken")
	}
	if err := Missing(); err != nil {
		t.Skip("no models can be built here: ", err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"syntax.v": "module k(input aclk;\n", "other.v": "module other(input wire aclk); endmodule\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ file, want string }{
		"syntax":    {"syntax.v", "syntax.v:1"},
		"no module": {"other.v", "k"},
		"no file":   {"none.v", "none.v"},
	} {
		_, err := Build(t.Context(), Design{Dir: dir, Sources: []string{c.file}, Top: "k", Width: 8})
		if err == nil || !strings.Contains(err.Error(), "does not compile") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoVerilator: a host without the tools says which one it lacks.
func TestNoVerilator(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), Design{Top: "k", Width: 8})
	if !errors.Is(err, ErrNoVerilator) || !strings.Contains(err.Error(), "verilator is not installed") {
		t.Error(err)
	}
}
