package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestRoleFlags gives `quern up --processes` every flag that it has: each role gets
// those that it has, too, with the same values.
func TestRoleFlags(t *testing.T) {
	up := newUp()
	up.Flags().String("log-level", "info", "")
	up.Flags().String("log-format", "text", "")
	line := []string{"--processes"}
	up.Flags().VisitAll(func(f *pflag.Flag) {
		switch f.Value.Type() {
		case "bool":
			if f.Name != "processes" {
				line = append(line, "--"+f.Name+"="+map[string]string{"true": "false", "false": "true"}[f.DefValue])
			}
		case "int", "uint32", "uint64":
			line = append(line, "--"+f.Name+"=2")
		case "string":
			line = append(line, "--"+f.Name+"=/some/"+f.Name)
		case "stringArray":
			line = append(line, "--"+f.Name+"=/a,b", "--"+f.Name+"=c d")
		case "stringSlice":
			line = append(line, "--"+f.Name+"=ro,noatime")
		case "stringToString":
			line = append(line, "--"+f.Name+"=zone=z1", "--"+f.Name+"=rack=a b")
		default:
			t.Errorf("--%s is a %s", f.Name, f.Value.Type())
		}
	})
	if err := up.ParseFlags(line); err != nil {
		t.Fatal(err)
	}
	opts := upOptions{mount: "/mnt", agents: 1, flags: up.Flags(), logLevel: "debug", logFormat: "json"}
	h := &home{dir: "/data", cluster: cluster{Members: []member{{Name: "meta-1"}}, Nodes: []node{{Name: "chunkd-1"}}}}
	metas, chunks, mounts := h.roleArgs(opts)
	given := 0
	for _, x := range []struct {
		role *cobra.Command
		args []string
	}{{newMeta(), metas["meta-1"]}, {newChunkd(), chunks["chunkd-1"]}, {newAgent(), mounts["agent-1"]}, {newMount(), mounts["mount-1"]}} {
		own := ownFlags[x.role.Name()]
		x.role.Flags().String("log-level", "info", "")
		x.role.Flags().String("log-format", "text", "")
		if len(x.args) == 0 || x.args[0] != x.role.Name() {
			t.Fatalf("%s: %q", x.role.Name(), x.args)
		}
		if err := x.role.ParseFlags(x.args[1:]); err != nil {
			t.Errorf("%q: %v", x.args, err)
		}
		x.role.Flags().VisitAll(func(f *pflag.Flag) {
			said := up.Flags().Lookup(f.Name)
			if said == nil || slices.Contains(own, f.Name) || strings.HasPrefix(f.Name, "log-") {
				return
			}
			given++
			if got, want := sortedValue(f), sortedValue(said); got != want || !f.Changed {
				t.Errorf("%s gets --%s %s, and up was given %s", x.role.Name(), f.Name, got, want)
			}
		})
		if got := x.role.Flags().Lookup("data").Value.String(); got != "/data" {
			t.Errorf("%s: --data %s", x.role.Name(), got)
		}
		for _, name := range own {
			if x.role.Flags().Lookup(name) == nil || up.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s of its own", x.role.Name(), name)
			}
		}
	}
	if given < 20 {
		t.Errorf("%d flags were passed on", given)
	}
	// What an agent can be told up can be told.
	newAgent().Flags().VisitAll(func(f *pflag.Flag) {
		if up.Flags().Lookup(f.Name) == nil && f.Name != "name" && f.Name != "as-host" {
			t.Errorf("up has no --%s, which agents have", f.Name)
		}
	})
}

// sortedValue is a value of a flag; the parts of one without an order are sorted.
func sortedValue(f *pflag.Flag) string {
	v := f.Value.String()
	if f.Value.Type() != "stringToString" {
		return v
	}
	parts := strings.Split(strings.Trim(v, "[]"), ",")
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
