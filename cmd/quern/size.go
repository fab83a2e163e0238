package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// parseSize reads a number of bytes such as 256MiB, 1G or 4096. Units are
// powers of 1024.
func parseSize(text string) (int64, error) {
	s := strings.ToUpper(strings.TrimSpace(text))
	s = strings.TrimSuffix(strings.TrimSuffix(s, "B"), "I")
	shift := 0
	if s != "" {
		if i := strings.IndexByte("KMGTP", s[len(s)-1]); i >= 0 {
			shift = 10 * (i + 1)
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	v := n * math.Pow(2, float64(shift))
	if err != nil || v < 0 || v > math.MaxInt64/2 || v != v {
		return 0, fmt.Errorf("%q is no size: a number is needed, such as 256MiB", text)
	}
	return int64(v), nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
