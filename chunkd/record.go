package chunkd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"quernfs/internal/block"
)

// The formats of segments and records; doc.go draws them.
const (
	align             = 4 << 10
	segmentHeaderSize = align
	recordHeaderSize  = 128
	formatVersion     = 1
	tombstoneSize     = 12   // block u64, index u32
	maxTombstones     = 4096 // in one record
	maxIndex          = block.MaxK + block.MaxM
)

var (
	segmentMagic   = [8]byte([]byte("QRNSEG01"))
	shardMagic     = [8]byte([]byte("QRNSHARD"))
	tombstoneMagic = [8]byte([]byte("QRNTOMBS"))

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// place is a position in the log: segments in order of their ids.
type place struct {
	segment uint64
	off     int64
}

func (p place) before(q place) bool {
	return p.segment < q.segment || (p.segment == q.segment && p.off < q.off)
}

// shardID names a shard.
type shardID struct {
	block uint64
	index uint32
}

func (id shardID) String() string { return fmt.Sprintf("block %d shard %d", id.block, id.index) }

// record is the header of one record.
type record struct {
	tombstone bool
	bodyCRC   uint32
	nonce     uint64
	at        place
	id        shardID
	length    uint32 // bytes of the shard or of the list of ids
	leaves    uint32 // bytes of leaf digests
	root      [32]byte
}

// size is what the record takes in its segment.
func (r *record) size() int64 { return recordSize(int(r.leaves), int(r.length)) }

// data is where the shard's bytes start in the segment.
func (r *record) data() int64 { return r.at.off + recordHeaderSize + int64(r.leaves) }

func recordSize(leaves, length int) int64 {
	return (int64(recordHeaderSize+leaves+length) + align - 1) / align * align
}

func (r *record) encode() []byte {
	b := make([]byte, recordHeaderSize, recordHeaderSize+int(r.leaves))
	magic := shardMagic
	if r.tombstone {
		magic = tombstoneMagic
	}
	copy(b, magic[:])
	le.PutUint32(b[12:], r.bodyCRC)
	le.PutUint64(b[16:], r.nonce)
	le.PutUint64(b[24:], r.at.segment)
	le.PutUint64(b[32:], uint64(r.at.off))
	le.PutUint64(b[40:], r.id.block)
	le.PutUint32(b[48:], r.id.index)
	le.PutUint32(b[52:], r.length)
	le.PutUint32(b[56:], r.leaves)
	copy(b[64:], r.root[:])
	le.PutUint32(b[8:], crc32.Checksum(b[12:recordHeaderSize], castagnoli))
	return b
}

var errNoRecord = errors.New("no record here")

// decodeRecord reads the header of a record that should lie at this place of a
// segment with this nonce. What it returns is bounded: the length fits a shard,
// the leaves fit the length.
func decodeRecord(b []byte, at place, nonce uint64) (*record, error) {
	if len(b) < recordHeaderSize {
		return nil, errNoRecord
	}
	magic := [8]byte(b[:8])
	if magic != shardMagic && magic != tombstoneMagic {
		return nil, errNoRecord
	}
	if le.Uint32(b[8:]) != crc32.Checksum(b[12:recordHeaderSize], castagnoli) {
		return nil, errNoRecord
	}
	r := &record{
		tombstone: magic == tombstoneMagic,
		bodyCRC:   le.Uint32(b[12:]),
		nonce:     le.Uint64(b[16:]),
		at:        place{le.Uint64(b[24:]), int64(le.Uint64(b[32:]))},
		id:        shardID{le.Uint64(b[40:]), le.Uint32(b[48:])},
		length:    le.Uint32(b[52:]),
		leaves:    le.Uint32(b[56:]),
		root:      [32]byte(b[64:96]),
	}
	if r.nonce != nonce || r.at != at || r.length == 0 || r.length > block.MaxBlockSize {
		return nil, errNoRecord
	}
	if r.tombstone {
		if r.leaves != 0 || r.length%tombstoneSize != 0 || r.length > maxTombstones*tombstoneSize {
			return nil, errNoRecord
		}
		return r, nil
	}
	if r.id.index >= maxIndex || int(r.leaves) != block.LeafCount(int(r.length))*block.HashSize {
		return nil, errNoRecord
	}
	return r, nil
}

// bodyCRC is the checksum of a record's body.
func bodyCRC(parts ...[]byte) uint32 {
	var c uint32
	for _, p := range parts {
		c = crc32.Update(c, castagnoli, p)
	}
	return c
}

func encodeTombstones(ids []shardID) []byte {
	b := make([]byte, 0, len(ids)*tombstoneSize)
	for _, id := range ids {
		b = le.AppendUint64(b, id.block)
		b = le.AppendUint32(b, id.index)
	}
	return b
}

func decodeTombstones(b []byte) []shardID {
	var ids []shardID
	for ; len(b) >= tombstoneSize; b = b[tombstoneSize:] {
		ids = append(ids, shardID{le.Uint64(b), le.Uint32(b[8:])})
	}
	return ids
}

// segmentHeader is the first 4 KiB of a segment.
type segmentHeader struct {
	id      uint64
	nonce   uint64
	created int64
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic[:])
	le.PutUint32(b[12:], formatVersion)
	le.PutUint64(b[16:], h.id)
	le.PutUint64(b[24:], h.nonce)
	le.PutUint64(b[32:], uint64(h.created))
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// decodeSegmentHeader reads the header of segment id. blank: nothing was ever
// written there, the segment's making was cut short.
func decodeSegmentHeader(b []byte, id uint64) (h segmentHeader, blank bool, err error) {
	zero := true
	for _, c := range b {
		if c != 0 {
			zero = false
			break
		}
	}
	switch {
	case zero:
		return h, true, nil
	case len(b) < segmentHeaderSize:
		return h, false, errors.New("the header is cut short")
	case [8]byte(b[:8]) != segmentMagic:
		return h, false, errors.New("it is not a segment file")
	case le.Uint32(b[8:]) != crc32.Checksum(b[12:segmentHeaderSize], castagnoli):
		return h, false, errors.New("the checksum of the header is wrong")
	case le.Uint32(b[12:]) != formatVersion:
		return h, false, fmt.Errorf("it has format %d, this program knows %d", le.Uint32(b[12:]), formatVersion)
	case le.Uint64(b[16:]) != id:
		return h, false, fmt.Errorf("it is segment %d", le.Uint64(b[16:]))
	}
	return segmentHeader{id: id, nonce: le.Uint64(b[24:]), created: int64(le.Uint64(b[32:]))}, false, nil
}
