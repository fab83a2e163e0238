package linear

import (
	"strings"
	"testing"
	"time"
)

// call records an operation that returns at once.
func call(r *Recorder, client int, op Op, res Result) {
	op.Group, op.Dir = "g", "d"
	if op.Kind == Rename {
		op.Dir2 = "d"
	}
	r.Call(client, op)(res)
}

// TestModel: histories that can be explained, and that cannot.
func TestModel(t *testing.T) {
	ok := Result{}
	created := func(ino uint64) Result { return Result{Ino: ino} }
	for _, tc := range []struct {
		name  string
		wrong bool
		play  func(r *Recorder)
	}{
		{"create, look up, remove", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a"}, created(5))
			call(r, 2, Op{Kind: Create, Name: "a"}, Result{Err: "EEXIST"})
			call(r, 2, Op{Kind: Lookup, Name: "a"}, created(5))
			call(r, 1, Op{Kind: Unlink, Name: "a"}, ok)
			call(r, 2, Op{Kind: Lookup, Name: "a"}, Result{Err: "ENOENT"})
		}},
		{"a name that was removed is found", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a"}, created(5))
			call(r, 1, Op{Kind: Unlink, Name: "a"}, ok)
			call(r, 2, Op{Kind: Lookup, Name: "a"}, created(5))
		}},
		{"two claim one job", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "job"}, created(5))
			call(r, 1, Op{Kind: Rename, Name: "job", Name2: "one"}, ok)
			call(r, 2, Op{Kind: Rename, Name: "job", Name2: "one"}, ok)
		}},
		{"a create without an answer is seen later", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a", Owner: 1}, Result{Unknown: true})
			call(r, 2, Op{Kind: Lookup, Name: "a"}, Result{Err: "ENOENT"})
			call(r, 2, Op{Kind: Lookup, Name: "a"}, created(7))
			call(r, 2, Op{Kind: Link, Ino: 7, Name: "b"}, ok)
			call(r, 3, Op{Kind: List}, Result{Names: map[string]uint64{"a": 7, "b": 7}})
		}},
		{"it has one number only", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a", Owner: 1}, Result{Unknown: true})
			call(r, 2, Op{Kind: Lookup, Name: "a"}, created(7))
			call(r, 2, Op{Kind: Lookup, Name: "a"}, created(8))
		}},
		{"exchange", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a"}, created(5))
			call(r, 1, Op{Kind: Create, Name: "b"}, created(6))
			call(r, 2, Op{Kind: Rename, Name: "a", Name2: "b", Flags: Exchange}, ok)
			call(r, 3, Op{Kind: List}, Result{Names: map[string]uint64{"a": 6, "b": 5}})
			call(r, 3, Op{Kind: Rename, Name: "a", Name2: "b", Flags: NoReplace}, Result{Err: "EEXIST"})
		}},
		{"a link to a name that is there", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Create, Name: "a"}, created(5))
			call(r, 1, Op{Kind: Create, Name: "b"}, created(6))
			call(r, 1, Op{Kind: Unlink, Name: "a"}, ok)
			call(r, 2, Op{Kind: Link, Ino: 5, Name: "b"}, Result{Err: "EEXIST"})
			call(r, 2, Op{Kind: Link, Ino: 5, Name: "c"}, Result{Err: "ENOENT"})
		}},
		{"a read beside a change of the size", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "text"}, ok)
			end := r.Call(2, Op{Kind: Read, Ino: 5})
			call(r, 1, Op{Kind: Truncate, Ino: 5, N: 2}, ok)
			end(Result{Data: "te\x00\x00"})
		}},
		{"zeros after a change of the size", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "text"}, ok)
			call(r, 1, Op{Kind: Truncate, Ino: 5, N: 2}, ok)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: "te\x00\x00"})
		}},
		{"old contents", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "new"}, ok)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: ""})
		}},
		{"contents with a hole", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Off: 2, Data: "x"}, ok)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: "\x00\x00x"})
			call(r, 2, Op{Kind: Truncate, Ino: 5, N: 1}, ok)
			call(r, 1, Op{Kind: Size, Ino: 5}, Result{N: 1})
		}},
		{"what was not flushed is lost with its writer", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "new"}, ok)
			call(r, 1, Op{Kind: Read, Ino: 5}, Result{Data: "new"})
			r.Killed(1)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: ""})
		}},
		{"what was flushed is not", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "new"}, ok)
			r.Flushed(1, 5, r.Mark())
			r.Killed(1)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: ""})
		}},
		{"what another has read is not", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Write, Ino: 5, Data: "new"}, ok)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: "new"})
			r.Killed(1)
			call(r, 2, Op{Kind: Read, Ino: 5}, Result{Data: ""})
		}},
		{"two hold one lock", true, func(r *Recorder) {
			call(r, 1, Op{Kind: Lock, Ino: 5, Owner: 1}, ok)
			call(r, 2, Op{Kind: Lock, Ino: 5, Owner: 2}, ok)
		}},
		{"a lock ends with its owner", false, func(r *Recorder) {
			call(r, 1, Op{Kind: Lock, Ino: 5, Owner: 1}, ok)
			r.Killed(1)
			call(r, 2, Op{Kind: Lock, Ino: 5, Owner: 2}, Result{Err: "EAGAIN"})
			call(r, 2, Op{Kind: Lock, Ino: 5, Owner: 2}, ok)
		}},
	} {
		r := NewRecorder()
		tc.play(r)
		v := r.Check(10 * time.Second)
		if got := len(v.Wrong) > 0; got != tc.wrong || len(v.Undecided) > 0 {
			t.Errorf("%s: wrong %t, undecided %v\n%s", tc.name, got, v.Undecided, strings.Join(v.Wrong, "\n"))
		}
	}
}
