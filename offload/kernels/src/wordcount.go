//go:build wasip1

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"sort"
	"strconv"
	"unicode/utf8"
)

// wordcount counts words: runs of letters, digits, _ and everything beyond
// ASCII that do not begin with a digit. It writes "COUNT WORD", the most
// frequent first, at most --top N of them (or params.top; 0: all). In the map
// step of a job that reduces it writes all words, in their order; the reduce
// step adds up.
func wordcount(out *bufio.Writer, args []string, phase string) error {
	value, _ := option(args, "top", "TOP")
	top, err := number(value, 0)
	if err != nil {
		return err
	}
	counts := map[string]*int{}
	if phase == "reduce" {
		err = addCounts(counts, os.Stdin)
	} else {
		err = eachFile(func(_ string, r io.Reader) error { return countWords(counts, r) })
	}
	if err != nil {
		return err
	}
	ranked := phase != "map"
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	sort.Slice(words, func(i, j int) bool {
		a, b := *counts[words[i]], *counts[words[j]]
		if ranked && a != b {
			return a > b
		}
		return words[i] < words[j]
	})
	if ranked && top > 0 && len(words) > top {
		words = words[:top]
	}
	for _, w := range words {
		line := strconv.AppendInt(out.AvailableBuffer(), int64(*counts[w]), 10)
		line = append(line, ' ')
		line = append(line, w...)
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// wordByte: 1 may begin a word, 2 may only go on.
var wordByte = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= utf8.RuneSelf:
			t[c] = 1
		case c >= '0' && c <= '9':
			t[c] = 2
		}
	}
	return
}()

func countWords(counts map[string]*int, r io.Reader) error {
	buf := make([]byte, 256<<10)
	var word []byte
	digits := false // inside a run that began with a digit
	end := func() {
		if len(word) == 0 {
			return
		}
		if n, ok := counts[string(word)]; ok {
			*n++
		} else {
			one := 1
			counts[string(word)] = &one
		}
		word = word[:0]
	}
	for {
		n, err := r.Read(buf)
		chunk := buf[:n]
		for i := 0; i < len(chunk); {
			start := i
			for i < len(chunk) && wordByte[chunk[i]] != 0 {
				i++
			}
			if run := chunk[start:i]; len(run) > 0 {
				if len(word) == 0 && !digits && wordByte[run[0]] == 2 {
					digits = true
				}
				if !digits {
					word = append(word, run...)
				}
			}
			if i < len(chunk) {
				end()
				digits = false
				i++
			}
		}
		if err == io.EOF {
			end()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func addCounts(counts map[string]*int, r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 64<<20)
	for in.Scan() {
		count, word, ok := bytes.Cut(in.Bytes(), []byte{' '})
		n, err := strconv.Atoi(string(count))
		if !ok || err != nil {
			return errors.New("not a line of a count: " + strconv.Quote(in.Text()))
		}
		if p, ok := counts[string(word)]; ok {
			*p += n
		} else {
			counts[string(word)] = &n
		}
	}
	return in.Err()
}
