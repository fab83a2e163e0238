package offload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// TestHeaderInEachPart cuts random files in all ways: each part begins with the
// file's header, and behind it has every other line, whole and once.
func TestHeaderInEachPart(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		how := []jobfile.Split{jobfile.SplitShard, jobfile.SplitBlock, jobfile.SplitLines}[round%3]
		lines := 1 + r.IntN(3)
		data := randomText(r, r.IntN(30_000))
		if round%20 == 0 { // a header that is longer than a range
			data = slices.Concat(bytes.Repeat([]byte("x"), 3000), []byte("\n"), data)
		}
		all := slices.DeleteFunc(strings.SplitAfter(string(data), "\n"), func(s string) bool { return s == "" })
		header := strings.Join(all[:min(lines, len(all))], "")
		in := &wire.TaskInput{Path: "/f", Ino: 1, Size: uint64(len(data))}
		tasks := cutter{records: true}.cut([]part{{in, fit(randomLayout(r, len(data)), in.Size)}}, how, uint64(1+r.IntN(9000)))
		type piece struct {
			name, text string
		}
		var pieces []piece
		for _, task := range tasks {
			for _, x := range task.Inputs {
				if len(x.Ranges) == 0 {
					continue
				}
				f := memFile{data: data}
				views, err := viewParts(t.Context(), f, x, lines)
				if err != nil || len(views) != len(x.Ranges) {
					t.Fatal(len(views), err)
				}
				for k, v := range views {
					got, ok := strings.CutPrefix(string(readView(t, r, v, f)), header)
					if !ok {
						t.Fatalf("%s: a part begins with %.40q, the header is %.40q", how, got, header)
					}
					pieces = append(pieces, piece{rangeName(x, k), got})
				}
			}
		}
		slices.SortFunc(pieces, func(a, b piece) int { return strings.Compare(a.name, b.name) })
		var body strings.Builder
		for i, p := range pieces {
			if body.WriteString(p.text); i > 0 && p.name == pieces[i-1].name {
				t.Fatalf("two parts are called %s", p.name)
			}
		}
		if header+body.String() != string(data) {
			t.Fatalf("%s, %d lines of a header: the parts are %d bytes, the file has %d", how, lines, len(header)+body.Len(), len(data))
		}
	}
	long := memFile{data: bytes.Repeat([]byte("x"), maxHeader+1)}
	if _, err := readHeader(t.Context(), long, maxHeader+1, 1); err == nil {
		t.Error("a header without an end is taken")
	}
	for n, want := range []string{"", "a\n", "a\nb", "a\nb"} {
		if n == 0 {
			continue
		}
		if got, err := readHeader(t.Context(), memFile{data: []byte("a\nb")}, 3, n); err != nil || string(got) != want {
			t.Errorf("%d lines: %q, %v", n, got, err)
		}
	}
	whole := &wire.TaskInput{Path: "/f", Size: 9, Ranges: []*wire.FileRange{{Len: 9}}}
	if rangeName(whole, 0) != "/f" {
		t.Errorf("all of a file is called %s", rangeName(whole, 0))
	}
}

// TestHeaderLines: the job file decides, else the kernel's manifest.
func TestHeaderLines(t *testing.T) {
	for i, c := range []struct {
		spec     int
		manifest string
		want     int
	}{{-1, "", 0}, {2, "", 2}, {-1, "version: 1\nheader: 1\n", 1}, {0, "version: 1\nheader: 1\n", 0}, {3, "version: 1\nheader: 1\n", 3}, {-1, "version: 1\n", 0}} {
		if got := headerLines(&jobfile.Spec{Header: c.spec}, &wire.KernelRef{Manifest: []byte(c.manifest)}); got != c.want {
			t.Errorf("%d: %d lines, want %d", i, got, c.want)
		}
	}
	if fmt.Sprint(headerLines(&jobfile.Spec{Header: -1}, nil)) != "0" {
		t.Error("a program has a header")
	}
}
