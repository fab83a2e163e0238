//go:build wasip1

// The kernels inside the quern binary: one WASI module that looks at its first
// argument. Like any kernel it reads /in or the standard input, writes the
// standard output, and is told by QUERN_PHASE whether it maps
// (a reduce step follows), reduces, or does a single step.
package main

import (
	"bufio"
	"errors"
	"os"
	"strconv"
)

func run(out *bufio.Writer) error {
	if len(os.Args) < 2 {
		return errors.New("the first argument names the kernel")
	}
	phase := os.Getenv("QUERN_PHASE")
	reduce := phase == "reduce"
	args := os.Args[2:]
	switch os.Args[1] {
	case "wordcount":
		return wordcount(out, args, phase)
	case "grep":
		return grep(out, args, reduce)
	case "sha256sum":
		return sha256sum(out, reduce)
	case "histogram":
		return histogram(out, reduce)
	case "threshold":
		return threshold(out, args, reduce)
	case "matmul":
		return matmul(out, phase)
	case "kmeans":
		return kmeans(out, phase)
	}
	return errors.New("no kernel " + os.Args[1])
}

// option returns the value of --name VALUE or --name=VALUE in args, else that
// of the environment variable QUERN_env, and the arguments that are left.
func option(args []string, name, env string) (string, []string) {
	value := os.Getenv("QUERN_" + env)
	var rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--"+name && i+1 < len(args):
			i++
			value = args[i]
		case len(a) > len(name)+3 && a[:len(name)+3] == "--"+name+"=":
			value = a[len(name)+3:]
		default:
			rest = append(rest, a)
		}
	}
	return value, rest
}

func number(s string, otherwise int) (int, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New("not a number: " + s)
	}
	return n, nil
}
