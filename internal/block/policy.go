package block

import (
	"fmt"
	"strconv"
	"strings"

	"quernfs/internal/wire"
)

// Limits of a policy.
const (
	MaxK = 32
	MaxM = 8

	MinBlockSize     = 4 << 10
	MaxBlockSize     = wire.BlockSize
	DefaultBlockSize = wire.BlockSize
	MaxInline        = 64 << 10
	DefaultInline    = wire.InlineMax

	// NeverInline as InlineMax keeps even one byte out of the inode.
	NeverInline = 1
)

// Policy says how the data of a file is stored. In BlockSize and InlineMax
// zero means the default; what ParsePolicy and FromWire return has the
// defaults filled in.
type Policy struct {
	K, M      int // data and parity shards; K = 1 is replication
	BlockSize int // largest block, bytes
	InlineMax int // files up to this many bytes live in the inode; NeverInline: none
}

// Shards is k+m.
func (p Policy) Shards() int { return p.K + p.M }

// Replicated says that every shard is a copy of the whole block.
func (p Policy) Replicated() bool { return p.K == 1 }

// Enough is the number of durable shards with which a block may be committed
// when no more servers can be had: min(k+1, k+m).
func (p Policy) Enough() int { return min(p.K+1, p.K+p.M) }

// Resolved returns p with the defaults filled in.
func (p Policy) Resolved() Policy {
	if p.BlockSize == 0 {
		p.BlockSize = DefaultBlockSize
	}
	if p.InlineMax == 0 {
		p.InlineMax = DefaultInline
	}
	return p
}

// Validate says in one sentence what is wrong with p, as wire.Invalid.
func (p Policy) Validate() error {
	r := p.Resolved()
	switch {
	case p.K < 1 || p.K > MaxK:
		return invalid("%d data shards: k must be 1 to %d", p.K, MaxK)
	case p.M < 0 || p.M > MaxM:
		return invalid("%d parity shards: m must be 0 to %d", p.M, MaxM)
	case r.BlockSize < MinBlockSize || r.BlockSize > MaxBlockSize:
		return invalid("block size %d: must be %d to %d bytes", p.BlockSize, MinBlockSize, MaxBlockSize)
	case r.InlineMax < 0 || r.InlineMax > MaxInline:
		return invalid("inline limit %d: must be at most %d bytes", p.InlineMax, MaxInline)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return wire.Errorf(wire.Invalid, "policy", "", format, args...)
}

// String is the form that ParsePolicy reads: "4+2", followed by
// ",block=BYTES" and ",inline=BYTES" where they are not the defaults.
func (p Policy) String() string {
	s := strconv.Itoa(p.K) + "+" + strconv.Itoa(p.M)
	r := p.Resolved()
	if r.BlockSize != DefaultBlockSize {
		s += ",block=" + strconv.Itoa(r.BlockSize)
	}
	if r.InlineMax == NeverInline {
		s += ",inline=0"
	} else if r.InlineMax != DefaultInline {
		s += ",inline=" + strconv.Itoa(r.InlineMax)
	}
	return s
}

// ParsePolicy reads "k+m[,block=SIZE][,inline=SIZE]". A SIZE is a number of
// bytes, or with the suffix k or m of KiB or MiB; inline=0 means never.
func ParsePolicy(s string) (Policy, error) {
	parts := strings.Split(strings.TrimSpace(s), ",")
	ks, ms, ok := strings.Cut(parts[0], "+")
	if !ok {
		return Policy{}, invalid("%q: write it as k+m, like 4+2 or 1+2 for three copies", s)
	}
	k, err1 := number(ks)
	m, err2 := number(ms)
	if err1 != nil || err2 != nil {
		return Policy{}, invalid("%q: write it as k+m, like 4+2 or 1+2 for three copies", s)
	}
	p := Policy{K: k, M: m}
	for _, opt := range parts[1:] {
		name, value, _ := strings.Cut(opt, "=")
		n, err := size(value)
		if err != nil {
			return Policy{}, invalid("%q: %q is not a size", s, value)
		}
		switch name {
		case "block":
			if n == 0 {
				return Policy{}, invalid("%q: a block of no bytes", s)
			}
			p.BlockSize = n
		case "inline":
			p.InlineMax = max(n, NeverInline)
		default:
			return Policy{}, invalid("%q: %q is not an option: there are block=SIZE and inline=SIZE", s, name)
		}
	}
	p = p.Resolved()
	return p, p.Validate()
}

func size(s string) (int, error) {
	unit := 1
	switch {
	case strings.HasSuffix(s, "k"):
		unit, s = 1<<10, s[:len(s)-1]
	case strings.HasSuffix(s, "m"):
		unit, s = 1<<20, s[:len(s)-1]
	}
	n, err := number(s)
	if err != nil || n > MaxBlockSize {
		return 0, fmt.Errorf("not a size")
	}
	return n * unit, nil
}

// number reads decimal digits only: no sign, no space.
func number(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// FromWire decodes a policy. A nil or zero w gives an invalid Policy (K = 0),
// which means "that of the parent directory".
func FromWire(w *wire.Policy) Policy {
	return Policy{
		K: int(w.GetK()), M: int(w.GetM()),
		BlockSize: int(w.GetBlockSize()), InlineMax: int(w.GetInlineMax()),
	}.Resolved()
}

// ToWire encodes p, defaults filled in.
func (p Policy) ToWire() *wire.Policy {
	p = p.Resolved()
	return &wire.Policy{K: uint32(p.K), M: uint32(p.M), BlockSize: uint32(p.BlockSize), InlineMax: uint32(p.InlineMax)}
}
