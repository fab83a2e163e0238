package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mountTable has all mounts of this host, as proc(5) says.
var mountTable = "/proc/self/mounts"

// mountFor is the mount that a command is about: the one that was named, else that
// which the working directory lies in, else the only one of this host.
func mountFor(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	// By "..", since the way there from the root may not be the caller's to go.
	for dir, here := ".", os.FileInfo(nil); ; dir = filepath.Join("..", dir) {
		st, err := os.Stat(dir)
		if err != nil || here != nil && os.SameFile(st, here) {
			break
		}
		here = st
		if st, err := os.Stat(filepath.Join(dir, ".compute", "api")); err == nil && st.Mode().IsRegular() {
			return dir, nil
		}
	}
	mounts, err := os.ReadFile(mountTable)
	if err != nil {
		return "", err
	}
	switch all := ownMounts(string(mounts)); len(all) {
	case 0:
		return "", usagef("--mount MNT is needed, or --data DIR or --meta HOST:PORT,…: there is no mount of QuernFS on this host")
	case 1:
		return all[0], nil
	default:
		return "", usagef("--mount MNT is needed: there are several mounts of QuernFS, %s", strings.Join(all, " and "))
	}
}

// ownMounts are the mount points of QuernFS in /proc/self/mounts.
func ownMounts(mounts string) (all []string) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "fuse.quern" {
			continue
		}
		if p := unescape.Replace(f[1]); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

type mountKey struct{}

// withMount has a command know through which mount it asks.
func withMount(ctx context.Context, dir string) context.Context {
	return context.WithValue(ctx, mountKey{}, dir)
}

// mountOf is that mount; "" if it asks the metadata servers themselves.
func mountOf(ctx context.Context) string {
	dir, _ := ctx.Value(mountKey{}).(string)
	return dir
}
