package onnxworker

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"quernfs/offload/jobfile"
)

// record is where a record comes from.
type record struct {
	path string
	n    int
}

// classes writes what a model says of records.
type classes struct {
	c      *jobfile.Classify
	out    *bufio.Writer
	table  *csv.Writer
	begun  bool
	failed bool // the model, or the output, failed
}

func newClasses(c *jobfile.Classify, out io.Writer) *classes {
	w := bufio.NewWriterSize(out, 64<<10)
	return &classes{c: c, out: w, table: csv.NewWriter(w)}
}

// class is a line of the result. Fields are only ever added.
type class struct {
	Input  string   `json:"input"`
	Record int      `json:"record"`
	Class  int      `json:"class"`
	Label  string   `json:"label,omitempty"`
	Score  *float32 `json:"score"` // null: no number
}

// write writes the classes of a record with the largest scores. What is no number
// is smaller than all others; of equal scores the first is taken first.
func (w *classes) write(r record, scores []float32) error {
	if w.c.Labels != nil && len(w.c.Labels) != len(scores) {
		return fmt.Errorf("it gives %d scores, and there are %d labels", len(scores), len(w.c.Labels))
	}
	if w.c.Softmax {
		scores = softmax(scores)
	}
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	key := func(i int) float64 {
		if v := float64(scores[i]); !math.IsNaN(v) {
			return v
		}
		return math.Inf(-1)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := key(a), key(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	for _, i := range order[:min(w.c.Top, len(order))] {
		line := class{Input: r.path, Record: r.n, Class: i}
		if v := float64(scores[i]); !math.IsNaN(v) && !math.IsInf(v, 0) {
			line.Score = &scores[i]
		}
		if w.c.Labels != nil {
			line.Label = w.c.Labels[i]
		}
		if err := w.line(&line); err != nil {
			return err
		}
	}
	return nil
}

func (w *classes) line(l *class) error {
	if w.c.As == "jsonl" {
		b, err := json.Marshal(l)
		if err != nil {
			return err
		}
		_, err = w.out.Write(append(b, '\n'))
		return err
	}
	if err := w.heading(); err != nil {
		return err
	}
	score := ""
	if l.Score != nil {
		score = strconv.FormatFloat(float64(*l.Score), 'g', -1, 32)
	}
	return w.table.Write([]string{l.Input, strconv.Itoa(l.Record), strconv.Itoa(l.Class), l.Label, score})
}

func (w *classes) heading() error {
	if w.begun || w.c.As != "csv" {
		return nil
	}
	w.begun = true
	return w.table.Write([]string{"input", "record", "class", "label", "score"})
}

// end writes what is left.
func (w *classes) end() error {
	if err := w.heading(); err != nil {
		return err
	}
	w.table.Flush()
	if err := w.table.Error(); err != nil {
		return err
	}
	return w.out.Flush()
}

// softmax makes probabilities of scores.
func softmax(scores []float32) []float32 {
	most := slices.Max(scores)
	out, sum := make([]float32, len(scores)), 0.0
	for _, v := range scores {
		sum += math.Exp(float64(v - most))
	}
	for i, v := range scores {
		out[i] = float32(math.Exp(float64(v-most)) / sum)
	}
	return out
}
