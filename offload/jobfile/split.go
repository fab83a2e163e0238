package jobfile

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Split says how the inputs become tasks.
type Split string

const (
	SplitFile  Split = "file"  // whole files, small ones packed together
	SplitNone  Split = "none"  // one task reads everything
	SplitShard Split = "shard" // what one chunk server holds is read there, cut at lines
	SplitBlock Split = "block" // whole blocks, cut at lines
	SplitLines Split = "lines" // ranges, cut at lines
	SplitBytes Split = "bytes" // ranges, cut anywhere
)

var splits = []Split{SplitFile, SplitNone, SplitShard, SplitBlock, SplitLines, SplitBytes}

// Ranges says whether tasks get parts of files, and whether these are cut at
// lines.
func (s Split) Ranges() (ranges, records bool) {
	switch s {
	case SplitShard, SplitBlock, SplitLines:
		return true, true
	case SplitBytes:
		return true, false
	}
	return false, false
}

// MaxHeader is how many lines a header may have.
const MaxHeader = 100

// parseSplits reads the splits that a kernel allows.
func parseSplits(n *yaml.Node) ([]Split, error) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return nil, Errorf(n.Line, "splits must be a list such as [file, none], not %s", describe(n))
	}
	var out []Split
	for _, c := range n.Content {
		v, err := text(c, "splits")
		if err != nil {
			return nil, err
		}
		if !slices.Contains(splits, Split(v)) {
			return nil, Errorf(c.Line, "splits must be of file, none, shard, block, lines and bytes, not %q", shorten(v))
		}
		out = append(out, Split(v))
	}
	return out, nil
}

// Bounds of task_bytes.
const (
	MinTaskBytes = 4 << 10
	MaxTaskBytes = 1 << 40
)

// splitFields are the fields that say how the inputs become tasks.
func splitFields(s *Spec) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"header": func(n *yaml.Node) (err error) {
			s.Header, err = whole(n, "header", 0, MaxHeader)
			return err
		},
		"split": func(n *yaml.Node) error {
			s.SplitLine = n.Line
			v, err := text(n, "split")
			if err != nil {
				return err
			}
			s.Split = Split(v)
			if !slices.Contains(splits, s.Split) {
				return Errorf(n.Line, "split must be file, none, shard, block, lines or bytes, not %q", shorten(v))
			}
			return nil
		},
		"task_bytes": func(n *yaml.Node) (err error) {
			s.TaskBytes, err = sizeBetween(n, "task_bytes", MinTaskBytes, MaxTaskBytes, "4KiB to 1TiB such as 64MiB")
			return err
		},
	}
}

// sizeBetween reads a number of bytes; bounds says in words what is allowed.
func sizeBetween(n *yaml.Node, field string, least, most int64, bounds string) (int64, error) {
	bad := Errorf(n.Line, "%s must be a size from %s, not %s", field, bounds, describe(n))
	if n.Kind != yaml.ScalarNode {
		return 0, bad
	}
	text, factor := n.Value, 1.0
	if t, ok := strings.CutSuffix(text, "TiB"); ok {
		text, factor = t+"GiB", 1024
	}
	m := byteSize.FindStringSubmatch(text)
	if m == nil {
		return 0, bad
	}
	v, err := strconv.ParseFloat(m[1], 64)
	v *= units[m[2]] * factor
	if err != nil || math.IsNaN(v) || v < float64(least) || v > float64(most) {
		return 0, bad
	}
	return int64(v), nil
}
