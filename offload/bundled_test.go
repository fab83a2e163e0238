package offload

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"quernfs/internal/wire"
	"quernfs/offload/kernels/squeeze"
	"quernfs/offload/onnxworker"
)

// TestCSVInParts: a table that lies on three servers, in pieces, is aggregated
// where it lies; each part has the header, and the result is that of the whole. A
// cut within a record is told. Parts that were compressed are one file.
func TestCSVInParts(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it compiles 7 MB of WebAssembly")
	}
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	var table strings.Builder
	table.WriteString("shop,price\n")
	counts := map[string]int{}
	for i := range 3000 {
		shop := []string{"north", "\"east, far\"", "south"}[i%7%3]
		counts[shop]++
		fmt.Fprintf(&table, "%s,%d.10\n", shop, i%10)
	}
	ino := r.write("/sales.csv", table.String())
	pieces := func(text string) (out []Piece) {
		for off := 0; off < len(text); off += 4099 {
			out = append(out, Piece{Off: uint64(off), Len: uint64(min(4099, len(text)-off)), Block: uint64(off/12297 + 1), Servers: []uint32{uint32(off/4099%3 + 1)}})
		}
		return out
	}
	r.layout[ino] = pieces(table.String())
	const params = "params: {by: shop, aggregate: 'count, sum(price)'}\n"
	whole := r.submit("whole", "version: 1\nkernel: csv\n"+params+"inputs: /sales.csv\n")
	shards := r.submit("shards", "version: 1\nkernel: csv\n"+params+"inputs: /sales.csv\nsplit: shard\nreduce: {}\n")
	chosen := r.submit("chosen", "version: 1\nkernel: csv\nparams: {where: price > 9, select: shop}\ninputs: /sales.csv\nsplit: lines\ntask_bytes: 4KiB\nreduce: {}\n")
	plain := r.submit("plain", "version: 1\nkernel: csv\nheader: 0\nparams: {columns: 'a, b', where: a = 'shop', select: b}\ninputs: /sales.csv\nsplit: lines\ntask_bytes: 4KiB\nreduce: {}\n")
	combined := r.submit("combined", "version: 1\nkernel: csv\nheader: 0\nparams: {columns: 'name, cost'}\ninputs: /sales.csv\nsplit: block\ntask_bytes: 4KiB\n"+
		"combine: {kernel: csv, params: {where: cost != 'price', by: name, aggregate: sum(cost)}}\nreduce: {kernel: csv, params: {by: name as shop, aggregate: sum(cost)}}\n")
	packed := r.submit("packed", "version: 1\nkernel: gzip\ninputs: /sales.csv\nsplit: block\ntask_bytes: 4KiB\nreduce: {}\n")
	result := func(id uint64) string {
		t.Helper()
		job, tasks := r.wait(id)
		if job.State != StateSucceeded {
			t.Fatalf("%s: %s: %s\n%s", job.Name, job.State, job.Reason, planText(job, tasks))
		}
		return r.outputs(id)["output"]
	}
	want := result(whole)
	if !strings.Contains(want, fmt.Sprintf("south,%d,", counts["south"])) || !strings.Contains(want, `"east, far",`) {
		t.Fatalf("%s\n%v", want, counts)
	}
	if got := result(shards); got != want {
		t.Errorf("in parts:\n%s\nof the whole:\n%s", got, want)
	}
	if job, _ := r.wait(shards); job.Tasks < 3 {
		t.Errorf("%d tasks", job.Tasks)
	}
	if got := result(chosen); strings.Count(got, "\n") != 301 || !strings.HasPrefix(got, "shop\n") || strings.Count(got, "shop\n") != 1 {
		t.Errorf("%d lines are chosen: %.200q", strings.Count(got, "\n"), got)
	}
	if got := result(combined); strings.Count(got, "\n") != 4 || !strings.HasPrefix(got, "shop,sum(cost)\n\"east, far\",") {
		t.Errorf("combined: %q", got)
	}
	if got := result(plain); got != "b\nprice\n" {
		t.Errorf("without a header: %q", got)
	}
	var back strings.Builder
	if _, err := squeeze.Decompress(squeeze.Gzip, &back, strings.NewReader(result(packed))); err != nil || back.String() != table.String() {
		t.Errorf("the compressed parts are %d bytes of %d, %v", back.Len(), table.Len(), err)
	}

	broken := "shop,note\n" + strings.Repeat("north,\"two\nlines\"\n", 2000)
	r.layout[r.write("/notes.csv", broken)] = pieces(broken)
	id := r.submit("notes", "version: 1\nkernel: csv\nretries: 0\nparams: {aggregate: count}\ninputs: /notes.csv\nsplit: shard\nreduce: {}\n")
	if job, tasks := r.wait(id); job.State != StateFailed || !strings.Contains(planText(job, tasks)+job.Reason, "split: file") {
		t.Errorf("%s: %s", job.State, job.Reason)
	}
	id = r.submit("notes2", "version: 1\nkernel: csv\nparams: {aggregate: count}\ninputs: /notes.csv\n")
	if got := result(id); got != "count\n2000\n" {
		t.Errorf("%q", got)
	}
}

// TestBundledSubmission: what is refused of jobs with bundled kernels.
func TestBundledSubmission(t *testing.T) {
	r := newRig(t)
	s := newShell(t, r, 0)
	r.write("/in/a.txt", "a")
	r.write("/m.onnx", string(onnxworker.Dense([]float32{1, 1}, 1, 2)))
	r.write("/labels", "one\ntwo\n")
	r.write("/bad-labels", "one\n\ntwo\n")
	r.write("/long-labels", strings.Repeat("label\n", 20_000))
	head := "version: 1\ninputs: [/in/a.txt]\nkernel: "
	classify := func(params string) string { return head + "classify\nparams: {" + params + "}\n" }
	for i, c := range []struct {
		spec, sentence string
		code           wire.Code
	}{
		{head + "gzip\nsplit: shard\n", "line 4: kernel gzip@1 does not work with split: shard; it does with file, none, block, lines, bytes", wire.Invalid},
		{head + "gunzip\nsplit: block\n", "line 4: kernel gunzip@1 does not work with split: block; it does with file, none", wire.Invalid},
		{head + "csv\nsplit: bytes\n", "line 4: kernel csv@1 does not work with split: bytes", wire.Invalid},
		{head + "gzip\nsplit: lines\n", "", wire.OK},
		{head + "classify\n", "line 3: the kernel classify needs a model: params: {model: /PATH.onnx}", wire.Invalid},
		{classify("model: m.onnx"), `line 3: params.model must begin with "/", the root of the mount; "m.onnx" does not`, wire.Invalid},
		{classify("model: /n.onnx"), "line 3: there is no /n.onnx", wire.NotFound},
		{classify("model: /m.onnx, lables: /labels"), `line 3: the kernel classify has no param "lables"; did you mean "labels"?`, wire.Invalid},
		{classify("model: /m.onnx, labels: /bad-labels"), `line 3: params.labels: "" cannot be a label`, wire.Invalid},
		{classify("model: /m.onnx, labels: /long-labels"), "line 3: /long-labels is larger than 64 KiB", wire.Invalid},
		{classify("model: /m.onnx, shape: 3x224x224x3"), "line 3: params.shape must have 2 or 3 numbers, such as [3, 224, 224]", wire.Invalid},
		{classify("model: /m.onnx, top: some"), `line 3: params.top must be a number from 1 to 65536, not "some"`, wire.Invalid},
		{classify("model: /m.onnx, top: '1}, x: {'"), `line 3: params.top must not be "1}, x: {"`, wire.Invalid},
		{classify("model: /m.onnx, fit: 'a b'"), `line 3: params.fit must be one word, not "a b"`, wire.Invalid},
		{classify("model: /m.onnx, mean: 0.5 0.5"), "line 3: params.mean must be one number, or three of them", wire.Invalid},
		{classify("model: /m.onnx, labels: /labels, shape: 1x1, mean: '0.4, 0.5, 0.6', std: 0.2, softmax: true, top: 2, as: csv, fit: fill, layout: nchw, batch: 7, scale: 1, broken: skip"), "", wire.OK},
	} {
		name := fmt.Sprintf("job%d", i)
		err := s.queue(name+".yaml", c.spec)
		if wire.CodeOf(err) != c.code {
			t.Errorf("%s%v, want %v", c.spec, err, c.code)
		}
		if text, _ := s.cat("errors/" + name); c.sentence == "" && text != "" || !strings.HasPrefix(text, c.sentence) {
			t.Errorf("%s%q, want %q", c.spec, text, c.sentence)
		}
	}
}

// FuzzClassifyManifest: whatever the params are, the manifest says what they say
// and no more.
func FuzzClassifyManifest(f *testing.F) {
	f.Add("shape", "3x8x8", "cat")
	f.Add("as", "csv}, labels: [x", "a\"b: {")
	f.Add("batch", "1\n  file: /etc/passwd.onnx", "-")
	f.Fuzz(func(t *testing.T, name, value, label string) {
		_, k, err := classifyManifest(map[string]string{"model": "/m", name: value}, []string{label})
		if err != nil {
			return
		}
		if got := k.ONNX.Classify.Labels; k.ONNX.File != "model.onnx" || len(got) != 1 || got[0] != strings.ToValidUTF8(label, "\ufffd") && utf8.ValidString(label) {
			t.Errorf("%q: %q, %q: %+v", name, value, label, k.ONNX)
		}
	})
}

// TestClassifyManifest: every param has its place in the manifest.
func TestClassifyManifest(t *testing.T) {
	_, k, err := classifyManifest(map[string]string{
		"model": "/m", "labels": "/l", "shape": "[3, 8, 9]", "mean": "0.4,0.5,0.6", "std": "0.2", "softmax": "true", "top": "2", "as": "csv", "fit": "fill",
		"layout": "nchw", "batch": "7", "scale": "1e-2", "broken": "skip",
	}, []string{"a: {b", "c\"d"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%d %q %+v", k.ONNX.Batch, k.ONNX.Classify.Labels, *k.ONNX.Classify); !strings.HasPrefix(got, `7 ["a: {b" "c\"d"] {Shape:[3 8 9] Layout:nchw Scale:0.01`) ||
		!strings.Contains(got, "Mean:[0.4") || !strings.Contains(got, "Softmax:true Top:2 As:csv Broken:skip") {
		t.Error(got)
	}
}
