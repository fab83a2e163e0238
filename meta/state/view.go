package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"quernfs/internal/acl"
	"quernfs/internal/wire"
)

// view reads records from a Pebble reader: the batch under construction or a
// snapshot. The first failure of the database stays in err, and from then on
// everything seems absent: a caller looks at err once, at the end. A view
// serves one goroutine.
type view struct {
	r    pebble.Reader
	key  []byte // reused
	err  error
	read int // keys
}

func (v *view) fail(err error) {
	if v.err == nil && err != nil {
		v.err = err
	}
}

// errNoRecord: the bytes of a value are not those of a record.
var errNoRecord = errors.New("its value cannot be read")

func corrupt(key []byte, err error) error {
	return &wire.Error{Code: wire.Corrupt, Op: "state", Object: fmt.Sprintf("key %q", key), Err: err}
}

// get calls with on the value of key and says whether there is one. with must
// not keep the value.
func (v *view) get(key []byte, with func(value []byte) error) bool {
	if v.err != nil {
		return false
	}
	v.read++
	value, closer, err := v.r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false
	}
	if err != nil {
		v.fail(err)
		return false
	}
	defer closer.Close()
	if err := with(value); err != nil {
		v.fail(corrupt(key, err))
		return false
	}
	return true
}

func (v *view) has(key []byte) bool {
	return v.get(key, func([]byte) error { return nil })
}

// load decodes the record at key into m.
func (v *view) load(key []byte, m proto.Message) bool {
	return v.get(key, func(value []byte) error {
		if proto.Unmarshal(value, m) != nil {
			return errNoRecord
		}
		return nil
	})
}

func (v *view) number(key []byte) (n uint64, ok bool) {
	ok = v.get(key, func(value []byte) error {
		if len(value) != 8 {
			return fmt.Errorf("%d bytes, not 8", len(value))
		}
		n = num64(value)
		return nil
	})
	return n, ok
}

// scan calls each with the keys from lo up to hi (exclusive) in order, until
// it returns false. Key and value are valid during the call only. The view may
// be read, and the batch behind it written, in the call: the scan does not see
// such writes.
func (v *view) scan(lo, hi []byte, each func(key, value []byte) bool) {
	if v.err != nil || hi != nil && bytes.Compare(lo, hi) >= 0 {
		return
	}
	it, err := v.r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		v.fail(err)
		return
	}
	for ok := it.First(); ok; ok = it.Next() {
		v.read++
		value, err := it.ValueAndErr()
		if err != nil {
			v.fail(err)
			break
		}
		if !each(it.Key(), value) {
			break
		}
	}
	v.fail(it.Close())
}

// prefix is scan over all keys that start with p.
func (v *view) prefix(p []byte, each func(key, value []byte) bool) { v.scan(p, after(p), each) }

// decode is proto.Unmarshal for a scan: false and a failed view if value is
// not a record.
func (v *view) decode(key, value []byte, m proto.Message) bool {
	if proto.Unmarshal(value, m) != nil {
		v.fail(corrupt(key, errNoRecord))
		return false
	}
	return true
}

func (v *view) inode(ino uint64) *wire.Inode {
	v.key = inodeKey(v.key[:0], ino)
	in := new(wire.Inode)
	if !v.load(v.key, in) {
		return nil
	}
	return in
}

func (v *view) block(id uint64) *wire.Block {
	v.key = blockKey(v.key[:0], id)
	b := new(wire.Block)
	if !v.load(v.key, b) {
		return nil
	}
	return b
}

func (v *view) xattr(ino uint64, name string) (value []byte, ok bool) {
	v.key = xattrKey(v.key[:0], ino, name)
	ok = v.get(v.key, func(b []byte) error {
		value = append([]byte{}, b...)
		return nil
	})
	return value, ok
}

func (v *view) dentry(parent uint64, name string) *wire.Dentry {
	v.key = dentryKey(v.key[:0], parent, name)
	d := new(wire.Dentry)
	if !v.load(v.key, d) {
		return nil
	}
	return d
}

func (v *view) job(id uint64) *wire.Job {
	v.key = jobKey(v.key[:0], id)
	j := new(wire.Job)
	if !v.load(v.key, j) {
		return nil
	}
	return j
}

// extents calls each with the extents of ino that end above off, in order.
func (v *view) extents(ino, off uint64, each func(*wire.Extent) bool) {
	if off == 1<<64-1 {
		return
	}
	lo, hi := extentKey(nil, ino, off+1), after(key8(nil, kExtent, ino))
	v.scan(lo, hi, func(key, value []byte) bool {
		ex := new(wire.Extent)
		return v.decode(key, value, ex) && each(ex)
	})
}

// orphaned says whether session holds the nameless inode ino open.
func (v *view) orphaned(ino, session uint64) bool {
	v.key = orphanKey(v.key[:0], ino, session)
	return v.has(v.key)
}

// allowed says whether cred has all rights of mask on in.
func (v *view) allowed(in *wire.Inode, cred *wire.Cred, mask uint32) bool {
	var list []byte
	if in.HasAcl && in.Attr.Mode&0o070 != 0 {
		list, _ = v.xattr(in.Attr.Ino, acl.Access)
	}
	return Access(in, list, cred, mask)
}

// names splits a dentry key behind its parent.
func splitDentry(key []byte) (parent, cookie uint64, name string, err error) {
	if len(key) < 18 {
		return 0, 0, "", fmt.Errorf("dentry key of %d bytes", len(key))
	}
	return num64(key[1:]), num64(key[9:]), string(key[17:]), nil
}

func pair(value []byte) (a, b uint64, err error) {
	if len(value) != 16 {
		return 0, 0, fmt.Errorf("%d bytes, not 16", len(value))
	}
	return binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:]), nil
}
