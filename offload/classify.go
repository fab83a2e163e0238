package offload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
	"quernfs/offload/worker"
)

// The kernel classify has no model of its own: the job's params name one in the
// mount, and say what else a manifest would. The model is pinned as a kernel's
// files are; the labels become part of the manifest, which the job keeps.

const (
	// maxLabelFile bounds the file of labels, in bytes, and so what a job's record
	// keeps of it.
	maxLabelFile = 64 << 10
	classifyName = "classify"
)

// classifyParams are what goes from params into the manifest, and how it has to look
// there: as a word, a number or a list of them.
var classifyParams = map[string]string{
	"shape": "list", "mean": "list", "std": "list", "scale": "number", "top": "number", "softmax": "number", "batch": "number",
	"layout": "word", "fit": "word", "as": "word", "broken": "word", "model": "", "labels": "",
}

// plain is what a number or a word is made of, so that it is one in YAML, too.
var plain = regexp.MustCompile(`^[A-Za-z0-9.+-]+$`)

// classifyManifest makes the manifest that params ask for. Its error is a
// sentence about params.
func classifyManifest(params map[string]string, labels []string) ([]byte, *jobfile.Kernel, error) {
	fields := map[string]string{}
	batch := ""
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params[name]
		kind, ok := classifyParams[name]
		if !ok {
			return nil, nil, fmt.Errorf("the kernel classify has no param %q%s", name, jobfile.DidYouMean(name, slices.Sorted(maps.Keys(classifyParams))))
		}
		if kind == "" {
			continue
		}
		var items []string
		for _, item := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || kind == "list" && (r == 'x' || r == '[' || r == ']') }) {
			if !plain.MatchString(item) {
				return nil, nil, fmt.Errorf("params.%s must not be %q", name, value)
			}
			items = append(items, item)
		}
		switch {
		case kind == "list":
			fields[name] = "[" + strings.Join(items, ", ") + "]"
		case len(items) != 1:
			return nil, nil, fmt.Errorf("params.%s must be one %s, not %q", name, kind, value)
		case name == "batch":
			batch = items[0]
		default:
			fields[name] = items[0]
		}
	}
	if labels != nil {
		b, err := json.Marshal(labels)
		if err != nil {
			return nil, nil, err
		}
		fields["labels"] = string(b)
	}
	var b bytes.Buffer
	b.WriteString("version: 1\nonnx:\n")
	if batch != "" {
		fmt.Fprintf(&b, "  batch: %s\n", batch)
	}
	b.WriteString("  classify: {")
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %s", name, fields[name])
	}
	b.WriteString("}\n")
	k, err := jobfile.ParseKernel(b.Bytes())
	if err != nil {
		_, text := jobfile.Lines(err)
		text = strings.NewReplacer("onnx.classify.", "params.", "onnx.batch", "params.batch").Replace(text)
		return nil, nil, fmt.Errorf("%s", text)
	}
	return b.Bytes(), k, nil
}

// classify resolves a step with the kernel classify.
func (e *expander) classify(ctx context.Context, s jobfile.Step) (*wire.KernelRef, error) {
	params := map[string]string{}
	for _, p := range s.Params {
		params[strings.ToLower(p.Key)] = p.Value
	}
	name := params["model"]
	if name == "" {
		return nil, problem(wire.Invalid, e.job, s.KernelLine, "the kernel classify needs a model: params: {model: /PATH.onnx}")
	}
	var labels []string
	if file := params["labels"]; file != "" {
		data, _, err := e.param(ctx, "labels", file, maxLabelFile, s.KernelLine)
		if err != nil {
			return nil, err
		}
		labels = strings.Split(strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	}
	manifest, k, err := classifyManifest(params, labels)
	if err != nil {
		return nil, problem(wire.Invalid, e.job, s.KernelLine, "%v", err)
	}
	data, inode, err := e.param(ctx, "model", name, worker.MaxModule, s.KernelLine)
	if err != nil {
		return nil, err
	}
	a := inode.Attr
	f := &wire.KernelFile{Name: k.ONNX.File, Digest: digestOf(data), Ino: a.Ino, Size: a.Size, Uid: a.Uid, Mode: a.Mode & 0o777}
	return &wire.KernelRef{
		Name: classifyName + "@" + kernels.Version, Digest: f.Digest, Ino: f.Ino, Size: f.Size,
		Manifest: manifest, Runtimes: k.Runtimes(), Rates: []uint64{0}, Files: []*wire.KernelFile{f},
	}, nil
}

// param reads a file that a param names.
func (e *expander) param(ctx context.Context, param, name string, most int64, line int) ([]byte, *wire.Inode, error) {
	if !strings.HasPrefix(name, "/") {
		return nil, nil, problem(wire.Invalid, e.job, line, "params.%s must begin with \"/\", the root of the mount; %q does not", param, name)
	}
	name = path.Clean(name)
	inode, err := e.reach(ctx, name, line)
	if err != nil {
		return nil, nil, err
	}
	data, err := e.read(ctx, name, inode, most, line)
	return data, inode, err
}
