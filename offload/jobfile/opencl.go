package jobfile

import (
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// OpenCL is the variant of a kernel for devices of OpenCL: a source file, and
// how bytes get into its arguments and out of them.
//
//	opencl:
//	  file: k.cl
//	  params:                       # numbers from the job's params
//	    threshold: {type: float, default: 0}
//	  input:                        # what the standard input holds, in this order
//	    - {array: a}                #   an array: buffer a, numbers a.rows and a.cols
//	    - {stream: in, type: float} #   all that is left, in pieces: buffer in, number in.n
//	  buffers:                      # further memory, made anew for every piece
//	    out: {type: float, count: in.n}
//	    sums: {type: uint, count: 256, sum: true}
//	  equal: [[a.cols, b.rows]]     # what the input must fulfil
//	  run:                          # one after the other
//	    - {entry: filter, args: [in, out, in.n, param.threshold], global: [in.n], local: [64]}
//	  output: {raw: out}            # or {lines: sums}, or {array: c, rows: a.rows, cols: b.cols}
//
// A stream is cut into pieces of at most chunk elements; the passes of run are
// carried out once for each, else once in all. A buffer with sum: true is zero
// at the beginning of each piece, and its elements are added up over all pieces
// in 64 bits. Global sizes are rounded up to a multiple of the local ones, so a
// kernel compares its number with the true size. Sizes are passed as uint.
type OpenCL struct {
	File    string
	Params  []CLParam
	Input   []CLInput
	Buffers []CLBuffer
	Equal   [][2]Expr
	Run     []CLPass
	Output  CLOutput
}

// CLParam is a number that a job may set.
type CLParam struct {
	Name    string
	Type    string // float, int or uint
	Default string
}

// CLInput is one part of the input: an array or the stream.
type CLInput struct {
	Name   string
	Stream bool
	Type   string // of the elements; arrays: float
	Chunk  int    // elements; of a stream
}

// CLBuffer is memory of the device.
type CLBuffer struct {
	Name  string
	Type  string
	Count Expr
	Sum   bool
}

// CLPass is one kernel enqueued.
type CLPass struct {
	Entry  string
	Args   []string // names of buffers, sizes (in.n), params (param.NAME)
	Global []Expr
	Local  []int // nil, or as many as Global
}

// CLOutput says what becomes of a buffer.
type CLOutput struct {
	Form       string // "raw", "lines" or "array"
	Buffer     string
	Rows, Cols Expr // of an array
}

// TypeSize is the bytes of an element by its type.
var TypeSize = map[string]int{"uchar": 1, "int": 4, "uint": 4, "float": 4}

const (
	maxCLParts = 16      // of each list of a recipe
	maxChunk   = 1 << 26 // elements
)

var (
	clName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	clEntry = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
)

func parseOpenCL(n *yaml.Node) (*OpenCL, error) {
	return parseRecipe(n, "opencl", "k.cl")
}

// parseRecipe reads the variant called name, whose file is like file.
func parseRecipe(n *yaml.Node, name, file string) (*OpenCL, error) {
	if err := mapping(n, name, "{file: "+file+", …}"); err != nil {
		return nil, err
	}
	p := &clParser{name: name, cl: &OpenCL{File: file}, buffers: map[string]string{}, sizes: map[string]bool{}, params: map[string]bool{}}
	seen := map[string]*yaml.Node{}
	keep := func(name string) func(*yaml.Node) error {
		return func(n *yaml.Node) error { seen[name] = n; return nil }
	}
	err := fields(n, map[string]func(*yaml.Node) error{
		"file": func(n *yaml.Node) (err error) {
			p.cl.File, err = bundleFile(n, name+".file", path.Ext(file))
			return err
		},
		"params": keep("params"), "input": keep("input"), "buffers": keep("buffers"),
		"equal": keep("equal"), "run": keep("run"), "output": keep("output"),
	})
	if err != nil {
		return nil, err
	}
	// In this order, whatever that of the file: the later ones name the earlier.
	for _, part := range []struct {
		name   string
		parse  func(*yaml.Node) error
		needed bool
	}{
		{"params", p.parseParams, false}, {"input", p.parseInput, true}, {"buffers", p.parseBuffers, false},
		{"equal", p.parseEqual, false}, {"run", p.parseRun, true}, {"output", p.parseOutput, true},
	} {
		v := seen[part.name]
		if v == nil && part.needed {
			return nil, Errorf(n.Line, "%s needs %q", name, part.name+":")
		}
		if v == nil {
			continue
		}
		if err := part.parse(v); err != nil {
			return nil, err
		}
	}
	return p.cl, nil
}

// clParser knows what has been named so far.
type clParser struct {
	name    string // of the variant: "opencl"
	cl      *OpenCL
	buffers map[string]string // type by name
	sizes   map[string]bool   // a.rows, in.n
	params  map[string]bool
	stream  bool
}

// each walks a list of mappings.
func each(n *yaml.Node, field string, do func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > maxCLParts {
		return Errorf(n.Line, "%s must be a list of 1 to %d mappings, not %s", field, maxCLParts, describeList(n))
	}
	for _, c := range n.Content {
		if err := mapping(c, "an entry of "+field, "{…}"); err != nil {
			return err
		}
		if err := do(c); err != nil {
			return err
		}
	}
	return nil
}

func describeList(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "a list of " + strconv.Itoa(len(n.Content))
	}
	return describe(n)
}

// eachNamed walks a mapping from names to mappings.
func eachNamed(n *yaml.Node, field string, do func(name string, n *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxCLParts {
		return Errorf(n.Line, "%s must be a mapping of at most %d names, not %s", field, maxCLParts, describe(n))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || !clName.MatchString(k.Value) {
			return Errorf(k.Line, "a name in %s is made of small letters, digits and _, not %s", field, describe(k))
		}
		if err := mapping(v, field+"."+k.Value, "{type: float}"); err != nil {
			return err
		}
		if err := do(k.Value, v); err != nil {
			return err
		}
	}
	return nil
}

// oneOf reads one of several words.
func oneOf(n *yaml.Node, field string, to *string, allowed ...string) error {
	s, err := text(n, field)
	if err != nil {
		return err
	}
	if !slices.Contains(allowed, s) {
		return Errorf(n.Line, "%s must be one of %s, not %s", field, strings.Join(allowed, ", "), describe(n))
	}
	*to = s
	return nil
}

func (p *clParser) parseParams(n *yaml.Node) error {
	return eachNamed(n, p.name+".params", func(name string, n *yaml.Node) error {
		x := CLParam{Name: name, Type: "float", Default: "0"}
		if p.params[name] {
			return Errorf(n.Line, "%s.params has %q twice", p.name, name)
		}
		if reserved[strings.ToUpper(name)] {
			return Errorf(n.Line, "the name %q in %s.params is taken by the agent itself", name, p.name)
		}
		err := fields(n, map[string]func(*yaml.Node) error{
			"type":    func(n *yaml.Node) error { return oneOf(n, "type of a param", &x.Type, "float", "int", "uint") },
			"default": func(n *yaml.Node) (err error) { x.Default, err = text(n, "default of a param"); return err },
		})
		if err != nil {
			return err
		}
		if _, err := x.Encode(x.Default); err != nil {
			return Errorf(n.Line, "%s.params.%s: %v", p.name, name, err)
		}
		p.params[name] = true
		p.cl.Params = append(p.cl.Params, x)
		return nil
	})
}

func (p *clParser) parseInput(n *yaml.Node) error {
	return each(n, p.name+".input", func(n *yaml.Node) error {
		x := CLInput{Type: "float"}
		kinds, typed, chunkLine := 0, 0, 0
		name := func(stream bool) func(*yaml.Node) error {
			return func(n *yaml.Node) (err error) {
				x.Stream = stream
				kinds++
				x.Name, err = p.newBuffer(n)
				return err
			}
		}
		err := fields(n, map[string]func(*yaml.Node) error{
			"array":  name(false),
			"stream": name(true),
			"type": func(n *yaml.Node) error {
				typed = n.Line
				return oneOf(n, "type of an input", &x.Type, "uchar", "int", "uint", "float")
			},
			"chunk": func(n *yaml.Node) error {
				chunkLine = n.Line
				v, err := strconv.Atoi(n.Value)
				if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > maxChunk {
					return Errorf(n.Line, "chunk must be a number of elements from 1 to %d, not %s", maxChunk, describe(n))
				}
				x.Chunk = v
				return nil
			},
		})
		switch {
		case err != nil:
			return err
		case kinds != 1:
			return Errorf(n.Line, "an entry of %s.input is either an array or a stream", p.name)
		case p.stream:
			return Errorf(n.Line, "nothing comes after a stream: it takes all that is left of the input")
		case !x.Stream && typed != 0:
			return Errorf(typed, "an array has no type here: its elements are float")
		case !x.Stream && chunkLine != 0:
			return Errorf(chunkLine, "chunk is for a stream")
		}
		p.buffers[x.Name] = x.Type
		if x.Stream {
			p.stream = true
			p.sizes[x.Name+".n"] = true
			if x.Chunk == 0 {
				x.Chunk = 4 << 20 / TypeSize[x.Type]
			}
		} else {
			p.sizes[x.Name+".rows"], p.sizes[x.Name+".cols"] = true, true
		}
		p.cl.Input = append(p.cl.Input, x)
		return nil
	})
}

// newBuffer reads a name that is not in use.
func (p *clParser) newBuffer(n *yaml.Node) (string, error) {
	s, err := text(n, "the name of an input")
	if err != nil {
		return "", err
	}
	if !clName.MatchString(s) || s == "param" {
		return "", Errorf(n.Line, "the name of a buffer is made of small letters, digits and _, not %q", shorten(s))
	}
	if p.buffers[s] != "" {
		return "", Errorf(n.Line, "there are two buffers called %q", s)
	}
	return s, nil
}

func (p *clParser) parseBuffers(n *yaml.Node) error {
	return eachNamed(n, p.name+".buffers", func(name string, n *yaml.Node) error {
		if p.buffers[name] != "" || name == "param" {
			return Errorf(n.Line, "there are two buffers called %q", name)
		}
		x := CLBuffer{Name: name, Type: "float"}
		err := fields(n, map[string]func(*yaml.Node) error{
			"type": func(n *yaml.Node) error {
				return oneOf(n, "type of a buffer", &x.Type, "uchar", "int", "uint", "float")
			},
			"count": func(n *yaml.Node) (err error) { x.Count, err = p.expr(n, "count"); return err },
			"sum": func(n *yaml.Node) error {
				if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
					return Errorf(n.Line, "sum must be true or false, not %s", describe(n))
				}
				x.Sum = n.Value == "true"
				return nil
			},
		})
		switch {
		case err != nil:
			return err
		case x.Count.Zero():
			return Errorf(n.Line, "%s.buffers.%s needs a count of elements", p.name, name)
		case x.Sum && x.Type == "uchar":
			return Errorf(n.Line, "%s.buffers.%s: sums are int, uint or float", p.name, name)
		}
		p.buffers[name] = x.Type
		p.cl.Buffers = append(p.cl.Buffers, x)
		return nil
	})
}

// expr reads an expression over what the input says.
func (p *clParser) expr(n *yaml.Node, field string) (Expr, error) {
	s, err := text(n, field)
	if err != nil {
		return Expr{}, err
	}
	e, err := ParseExpr(s)
	if err != nil {
		return e, Errorf(n.Line, "%s: %v", field, err)
	}
	e.names(func(name string) {
		if !p.sizes[name] && err == nil {
			err = Errorf(n.Line, "%s: nothing is called %q%s", field, name, DidYouMean(name, keys(p.sizes)))
		}
	})
	return e, err
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (p *clParser) parseEqual(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxCLParts {
		return Errorf(n.Line, "%s.equal must be a list of pairs such as [[a.cols, b.rows]], not %s", p.name, describe(n))
	}
	for _, pair := range n.Content {
		if pair.Kind != yaml.SequenceNode || len(pair.Content) != 2 {
			return Errorf(pair.Line, "an entry of %s.equal is a pair such as [a.cols, b.rows], not %s", p.name, describeList(pair))
		}
		var e [2]Expr
		for i, c := range pair.Content {
			var err error
			if e[i], err = p.expr(c, p.name+".equal"); err != nil {
				return err
			}
		}
		p.cl.Equal = append(p.cl.Equal, e)
	}
	return nil
}

func (p *clParser) parseRun(n *yaml.Node) error {
	return each(n, p.name+".run", func(n *yaml.Node) error {
		var x CLPass
		err := fields(n, map[string]func(*yaml.Node) error{
			"entry": func(n *yaml.Node) (err error) {
				if x.Entry, err = text(n, "entry"); err == nil && !clEntry.MatchString(x.Entry) {
					err = Errorf(n.Line, "entry must be the name of a kernel in the file, not %q", shorten(x.Entry))
				}
				return err
			},
			"args": func(n *yaml.Node) (err error) {
				x.Args, err = p.arguments(n)
				return err
			},
			"global": func(n *yaml.Node) error {
				list, err := texts(n, "global", 3)
				for _, c := range list {
					e, err := p.expr(c, "global")
					if err != nil {
						return err
					}
					x.Global = append(x.Global, e)
				}
				return err
			},
			"local": func(n *yaml.Node) error {
				list, err := texts(n, "local", 3)
				for _, c := range list {
					v, err := strconv.Atoi(c.Value)
					if err != nil || v < 1 || v > 1024 {
						return Errorf(c.Line, "local has numbers from 1 to 1024, not %s", describe(c))
					}
					x.Local = append(x.Local, v)
				}
				return err
			},
		})
		switch {
		case err != nil:
			return err
		case x.Entry == "":
			return Errorf(n.Line, "an entry of %s.run needs \"entry:\", the name of a kernel in the file", p.name)
		case len(x.Global) == 0:
			return Errorf(n.Line, "an entry of %s.run needs \"global:\", one to three sizes", p.name)
		case x.Local != nil && len(x.Local) != len(x.Global):
			return Errorf(n.Line, "local has %d sizes and global %d; give as many", len(x.Local), len(x.Global))
		}
		p.cl.Run = append(p.cl.Run, x)
		return nil
	})
}

// arguments reads names of buffers, sizes and params.
func (p *clParser) arguments(n *yaml.Node) ([]string, error) {
	list, err := words(n, "args", 32)
	for i, s := range list {
		param, isParam := strings.CutPrefix(s, "param.")
		if p.buffers[s] == "" && !p.sizes[s] && !(isParam && p.params[param]) {
			known := append(keys(p.buffers), keys(p.sizes)...)
			for _, name := range keys(p.params) {
				known = append(known, "param."+name)
			}
			return nil, Errorf(n.Content[i].Line, "args: nothing is called %q%s", shorten(s), DidYouMean(s, known))
		}
	}
	return list, err
}

func (p *clParser) parseOutput(n *yaml.Node) error {
	if err := mapping(n, p.name+".output", "{raw: out}"); err != nil {
		return err
	}
	o, forms := &p.cl.Output, 0
	form := func(name string) func(*yaml.Node) error {
		return func(n *yaml.Node) (err error) {
			o.Form = name
			forms++
			if o.Buffer, err = text(n, p.name+".output."+name); err == nil && p.buffers[o.Buffer] == "" {
				err = Errorf(n.Line, "%s.output: no buffer is called %q%s", p.name, shorten(o.Buffer), DidYouMean(o.Buffer, keys(p.buffers)))
			}
			return err
		}
	}
	err := fields(n, map[string]func(*yaml.Node) error{
		"raw": form("raw"), "lines": form("lines"), "array": form("array"),
		"rows": func(n *yaml.Node) (err error) { o.Rows, err = p.expr(n, "rows"); return err },
		"cols": func(n *yaml.Node) (err error) { o.Cols, err = p.expr(n, "cols"); return err },
	})
	if err != nil {
		return err
	}
	sum := slices.ContainsFunc(p.cl.Buffers, func(b CLBuffer) bool { return b.Name == o.Buffer && b.Sum })
	switch {
	case forms != 1:
		return Errorf(n.Line, "%s.output is one of raw, lines and array", p.name)
	case o.Form == "array" && (o.Rows.Zero() || o.Cols.Zero()):
		return Errorf(n.Line, "%s.output.array needs rows and cols", p.name)
	case o.Form != "array" && !(o.Rows.Zero() && o.Cols.Zero()):
		return Errorf(n.Line, "rows and cols are for %s.output.array", p.name)
	case o.Form == "array" && p.buffers[o.Buffer] != "float":
		return Errorf(n.Line, "%s.output.array: the elements of an array are float, not %s", p.name, p.buffers[o.Buffer])
	case o.Form == "array" && (p.stream || sum):
		return Errorf(n.Line, "%s.output.array is for recipes without a stream and for a buffer that is no sum", p.name)
	case o.Form == "lines" && !sum:
		return Errorf(n.Line, "%s.output.lines is for a buffer with sum: true", p.name)
	case o.Form == "raw" && sum:
		return Errorf(n.Line, "%s.output.raw is for a buffer that is no sum; lines prints sums", p.name)
	}
	return nil
}

// Encode turns the text of a param into the bytes of its type, little-endian.
func (x CLParam) Encode(s string) ([]byte, error) {
	var v uint32
	switch x.Type {
	case "float":
		f, err := strconv.ParseFloat(s, 32)
		if err != nil {
			return nil, Errorf(0, "%s must be a number, not %q", x.Name, shorten(s))
		}
		v = math.Float32bits(float32(f))
	case "int":
		i, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return nil, Errorf(0, "%s must be a whole number of 32 bits, not %q", x.Name, shorten(s))
		}
		v = uint32(i)
	default:
		u, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, Errorf(0, "%s must be a whole number from 0 to 4294967295, not %q", x.Name, shorten(s))
		}
		v = uint32(u)
	}
	return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}, nil
}
