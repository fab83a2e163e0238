//go:build wasip1

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"quernfs/offload/kernels/task"
)

// wordcount counts words: what ASCII's white space separates, as for wc -w. With
// --words identifiers (or params.words) they are runs of letters, digits, _ and
// everything beyond ASCII that do not begin with a digit. It writes "COUNT WORD",
// the most frequent first, at most --top N of them (or params.top; 0: all). In the
// map step of a job that reduces it writes all words, in the order in which they
// were found first; the reduce step adds up.
func wordcount(out *bufio.Writer, args []string, phase string) error {
	value, args := option(args, "top", "TOP")
	top, err := number(value, 0)
	if err != nil {
		return err
	}
	kind, _ := option(args, "words", "WORDS")
	of, ok := wordBytes[cmp.Or(kind, "space")]
	if !ok {
		return errors.New("words: space or identifiers, not " + strconv.Quote(kind))
	}
	var t words
	if phase == "reduce" {
		err = addCounts(&t, os.Stdin)
	} else {
		s := scanner{t: &t, of: of, buf: block}
		err = task.EachFile(func(_ string, r io.Reader) error { return s.scan(r) })
	}
	if err != nil {
		return err
	}
	list := t.all
	if phase != "map" {
		slices.SortFunc(list, func(a, b word) int {
			if a.count != b.count {
				return cmp.Compare(b.count, a.count)
			}
			return bytes.Compare(t.bytes(a), t.bytes(b))
		})
		if top > 0 && len(list) > top {
			list = list[:top]
		}
	}
	for _, w := range list {
		line := strconv.AppendInt(out.AvailableBuffer(), w.count, 10)
		line = append(line, ' ')
		line = append(line, t.bytes(w)...)
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// wordBytes says of each byte whether it belongs to a word: 1 may begin one, 2 may
// only go on.
var wordBytes = func() map[string]*[256]byte {
	space, identifiers := new([256]byte), new([256]byte)
	for c := range space {
		if !strings.ContainsRune(" \t\n\v\f\r", rune(c)) {
			space[c] = 1
		}
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= utf8.RuneSelf:
			identifiers[c] = 1
		case c >= '0' && c <= '9':
			identifiers[c] = 2
		}
	}
	return map[string]*[256]byte{"space": space, "identifiers": identifiers}
}()

// words is a hash table with linear probing, of words and their counts. A map of
// strings takes five times as long in WebAssembly, where hashing is slow.
type words struct {
	all   []word
	text  []byte   // the words, one after the other
	slots []uint32 // index in all plus one; at most half of them are taken
}

type word struct {
	off  uint64
	len  uint32
	hash uint32
	// count is how often it occurs.
	count int64
}

// The FNV-1a hash, which needs one step for each byte.
const (
	fnvBasis = 2166136261
	fnvPrime = 16777619
)

func fnv(b []byte) uint32 {
	h := uint32(fnvBasis)
	for _, c := range b {
		h = (h ^ uint32(c)) * fnvPrime
	}
	return h
}

func (t *words) bytes(w word) []byte { return t.text[w.off : w.off+uint64(w.len)] }

// add counts the word b, whose hash is h, n times.
func (t *words) add(b []byte, h uint32, n int64) {
	if 2*len(t.all) >= len(t.slots) {
		t.grow()
	}
	mask := uint32(len(t.slots) - 1)
	i := h & mask
	for ; t.slots[i] != 0; i = (i + 1) & mask {
		w := &t.all[t.slots[i]-1]
		if w.hash == h && int(w.len) == len(b) && bytes.Equal(t.bytes(*w), b) {
			w.count += n
			return
		}
	}
	t.all = append(t.all, word{uint64(len(t.text)), uint32(len(b)), h, n})
	t.text = append(t.text, b...)
	t.slots[i] = uint32(len(t.all))
}

func (t *words) grow() {
	t.slots = make([]uint32, max(2*len(t.slots), 1<<12))
	mask := uint32(len(t.slots) - 1)
	for k, w := range t.all {
		i := w.hash & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = uint32(k + 1)
	}
}

// scanner finds the words of a stream.
type scanner struct {
	t    *words
	of   *[256]byte
	buf  []byte
	part []byte // the begin of a word that the end of the buffer has cut
}

func (s *scanner) scan(r io.Reader) error {
	for {
		n, err := r.Read(s.buf)
		s.chunk(s.buf[:n])
		if err == io.EOF {
			s.end()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *scanner) chunk(b []byte) {
	i, of := 0, s.of
	if len(s.part) > 0 {
		for i < len(b) && of[b[i]] != 0 {
			i++
		}
		s.part = append(s.part, b[:i]...)
		if i == len(b) {
			return
		}
		s.end()
	}
	for i < len(b) {
		kind := of[b[i]]
		if kind == 0 {
			i++
			continue
		}
		start, h := i, uint32(fnvBasis)
		for i < len(b) && of[b[i]] != 0 {
			h = (h ^ uint32(b[i])) * fnvPrime
			i++
		}
		switch {
		case i == len(b):
			s.part = append(s.part, b[start:]...)
		case kind == 1:
			s.t.add(b[start:i], h, 1)
		}
	}
}

// end counts the word that has been cut.
func (s *scanner) end() {
	if len(s.part) > 0 && s.of[s.part[0]] == 1 {
		s.t.add(s.part, fnv(s.part), 1)
	}
	s.part = s.part[:0]
}

func addCounts(t *words, r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 64<<20)
	for in.Scan() {
		count, w, ok := bytes.Cut(in.Bytes(), []byte{' '})
		n, err := strconv.ParseInt(string(count), 10, 64)
		if !ok || err != nil {
			return errors.New("not a line of a count: " + strconv.Quote(in.Text()))
		}
		t.add(w, fnv(w), n)
	}
	return in.Err()
}
