//go:build wasip1

package main

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"strconv"

	"quernfs/offload/kernels/task"
)

// grep writes PATH:LINE:TEXT of every line that matches the first argument, a
// regular expression of Go (or params.pattern). The reduce step puts the parts
// one after the other.
func grep(out *bufio.Writer, args []string, reduce bool) error {
	if reduce {
		return task.CopyInput(out)
	}
	pattern, rest := option(args, "pattern", "PATTERN")
	if len(rest) > 0 {
		pattern = rest[0]
	}
	if pattern == "" {
		return errors.New("grep needs a pattern: args: [PATTERN]")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	return task.EachFile(func(path string, r io.Reader) error {
		in := lines
		in.Reset(r)
		for n := 1; ; n++ {
			line, err := in.ReadSlice('\n')
			for errors.Is(err, bufio.ErrBufferFull) { // a long line
				long := append([]byte(nil), line...)
				var more []byte
				more, err = in.ReadSlice('\n')
				line = append(long, more...)
			}
			if len(line) > 0 {
				text := line
				if text[len(text)-1] == '\n' {
					text = text[:len(text)-1]
				}
				if re.Match(text) {
					out.WriteString(path + ":" + strconv.Itoa(n) + ":")
					out.Write(text)
					out.WriteByte('\n')
				}
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}
