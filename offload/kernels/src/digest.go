//go:build wasip1

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"quernfs/offload/kernels/task"
)

// escapes are how names are written that have a line break in them, or a backslash:
// the line begins with a backslash then.
var escapes = strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`)

// sha256sum writes "DIGEST  PATH" for every input, as the command of that name
// does. The reduce step puts the parts one after the other.
func sha256sum(out *bufio.Writer, reduce bool) error {
	if reduce {
		return task.CopyInput(out)
	}
	return task.EachFile(func(path string, r io.Reader) error {
		h := sha256.New()
		if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, block); err != nil {
			return err
		}
		mark := ""
		if strings.ContainsAny(path, "\\\n\r") {
			mark, path = `\`, escapes.Replace(path)
		}
		_, err := out.WriteString(mark + hex.EncodeToString(h.Sum(nil)) + "  " + path + "\n")
		return err
	})
}

// histogram writes "BYTE COUNT" for each of the 256 values of a byte. The
// reduce step adds up.
func histogram(out *bufio.Writer, reduce bool) error {
	var counts [256]uint64
	if reduce {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var b, n uint64
			line := in.Text()
			for i := range line {
				if line[i] == ' ' {
					b, _ = strconv.ParseUint(line[:i], 10, 8)
					var err error
					if n, err = strconv.ParseUint(line[i+1:], 10, 64); err != nil {
						return errors.New("not a line of a histogram: " + strconv.Quote(line))
					}
					break
				}
			}
			counts[b] += n
		}
		if err := in.Err(); err != nil {
			return err
		}
	} else {
		for {
			n, err := os.Stdin.Read(block)
			for _, c := range block[:n] {
				counts[c]++
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	for b, n := range counts {
		if _, err := out.WriteString(strconv.Itoa(b) + " " + strconv.FormatUint(n, 10) + "\n"); err != nil {
			return err
		}
	}
	return nil
}
