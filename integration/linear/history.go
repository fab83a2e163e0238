package linear

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does.
type Kind int

const (
	Create   Kind = iota // O_CREAT|O_EXCL; gives Ino
	Link                 // Ino gets Dir/Name
	Rename               // Dir/Name to Dir2/Name2 with Flags
	Unlink               // Dir/Name
	Lookup               // Dir/Name; gives Ino
	List                 // Dir; gives Names
	Write                // Data at Off of Ino
	Read                 // all of Ino; gives Data
	Size                 // of Ino; gives N
	Truncate             // Ino to N bytes
	Lock                 // Ino for Owner, exclusively, without waiting
	Unlock
)

var kinds = [...]string{"create", "link", "rename", "unlink", "lookup", "list", "write", "read", "size", "truncate", "lock", "unlock"}

// Flags of Rename, as in renameat2(2).
const (
	NoReplace = 1
	Exchange  = 2
)

// Op is what a client asks for. Group names the directories that Rename joins;
// Dir is one of them.
type Op struct {
	Kind                   Kind
	Group                  string
	Dir, Name, Dir2, Name2 string
	Ino                    uint64
	Flags                  uint32
	Off, N                 int64
	Data                   string
	Owner                  uint64

	beside bool // a read during which the file's size may have changed
}

// asks: the operation changes nothing.
func (o Op) asks() bool {
	return o.Kind == Read || o.Kind == Size || o.Kind == Lookup || o.Kind == List
}

// Result is what it was told. Err is "" for success, else the name of an errno;
// Unknown says that there was no answer.
type Result struct {
	Err     string
	Unknown bool
	Ino     uint64
	Names   map[string]uint64
	Data    string
	N       int64
}

func (o Op) String() string {
	s := kinds[o.Kind]
	switch o.Kind {
	case Create, Unlink, Lookup:
		return fmt.Sprintf("%s %s/%s", s, o.Dir, o.Name)
	case List:
		return fmt.Sprintf("%s %s", s, o.Dir)
	case Link:
		return fmt.Sprintf("%s %d %s/%s", s, o.Ino, o.Dir, o.Name)
	case Rename:
		return fmt.Sprintf("%s %s/%s %s/%s%s", s, o.Dir, o.Name, o.Dir2, o.Name2, [...]string{"", " noreplace", " exchange"}[o.Flags])
	case Write:
		return fmt.Sprintf("%s %d %d+%d %s", s, o.Ino, o.Off, len(o.Data), short(o.Data))
	case Truncate:
		return fmt.Sprintf("%s %d %d", s, o.Ino, o.N)
	case Lock, Unlock:
		return fmt.Sprintf("%s %d by %d", s, o.Ino, o.Owner)
	}
	return fmt.Sprintf("%s %d", s, o.Ino)
}

func (r Result) String() string {
	switch {
	case r.Unknown:
		return "?"
	case r.Err != "":
		return r.Err
	case r.Names != nil:
		var all []string
		for n, ino := range r.Names {
			all = append(all, fmt.Sprintf("%s=%d", n, ino))
		}
		slices.Sort(all)
		return "{" + strings.Join(all, " ") + "}"
	case r.Ino != 0:
		return fmt.Sprint(r.Ino)
	}
	return strings.TrimSpace(fmt.Sprintf("ok %d %s", r.N, short(r.Data)))
}

// short is contents with runs of zeros as their number.
func short(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := len(s) - len(strings.TrimLeft(s, "\x00"))
		if n > 0 {
			fmt.Fprintf(&b, "(%d)", n)
		} else {
			n = max(strings.IndexByte(s, 0), 0)
			if n == 0 {
				n = len(s)
			}
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// record is one operation of the history.
type record struct {
	client    int
	op        Op
	call, ret int64
	result    Result
	dropped   bool  // it constrains nothing
	ended     int64 // when it was answered, also if it is dropped; 0: it was not
}

// Recorder takes down a history. All methods may be called concurrently.
type Recorder struct {
	mu      sync.Mutex
	clock   int64
	records []*record
	// Per client and file: records since the last flush.
	unflushed map[clientFile][]*record
	locks     map[int][]*record // by client: taken, and not known to be given up
}

type clientFile struct {
	client int
	ino    uint64
}

// NewRecorder makes an empty history.
func NewRecorder() *Recorder {
	return &Recorder{unflushed: map[clientFile][]*record{}, locks: map[int][]*record{}}
}

// never is a return after everything else.
const never = int64(1) << 62

// Call notes that client asks for op; the returned function notes the answer. A
// client that is killed meanwhile is Unknown.
func (r *Recorder) Call(client int, op Op) func(Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	rec := &record{client: client, op: op, call: r.clock, ret: never, result: Result{Unknown: true}}
	r.records = append(r.records, rec)
	switch op.Kind {
	case Write, Truncate, Read, Size:
		k := clientFile{client, op.Ino}
		r.unflushed[k] = append(r.unflushed[k], rec)
	case Lock:
		r.locks[client] = append(r.locks[client], rec)
	}
	return func(res Result) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if rec.dropped || res.Unknown {
			return
		}
		r.clock++
		rec.ret, rec.ended, rec.result = r.clock, r.clock, res
		if op.Kind == Lock && res.Err != "" || op.Kind == Unlock && res.Err == "" {
			// What it was about is over.
			r.locks[client] = slices.DeleteFunc(r.locks[client], func(l *record) bool {
				return l.op.Ino == op.Ino && l.op.Owner == op.Owner && (op.Kind == Unlock || l == rec)
			})
		}
	}
}

// Flushed notes that what client had written to a file before since is durable;
// Mark gives such a moment.
func (r *Recorder) Flushed(client int, ino uint64, since int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := clientFile{client, ino}
	r.unflushed[k] = slices.DeleteFunc(r.unflushed[k], func(rec *record) bool { return rec.ret <= since })
}

// Mark is the present moment.
func (r *Recorder) Mark() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	return r.clock
}

// Killed notes that a client is gone, or has lost its session: what it had not
// flushed may be lost, its locks end. Its number is not to be used again.
func (r *Recorder) Killed(client int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, list := range r.unflushed {
		if k.client != client {
			continue
		}
		for _, rec := range list {
			rec.dropped = true
			rec.ret, rec.result = never, Result{Unknown: true}
		}
		delete(r.unflushed, k)
	}
	for _, rec := range r.locks[client] {
		r.clock++
		end := rec.op
		end.Kind = Unlock
		r.records = append(r.records, &record{client: client, op: end, call: r.clock, ret: never, result: Result{Unknown: true}})
	}
	delete(r.locks, client)
}

// Len is how many operations there are.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

// Verdict says how judging went.
type Verdict struct {
	Operations int
	Unknown    int // of them, without an answer
	Partitions int
	Undecided  []string // partitions for which the time was too short
	Wrong      []string // the histories that no order explains
}

// Check judges the history, each partition within limit.
func (r *Recorder) Check(limit time.Duration) Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := map[string][]*record{}
	var v Verdict
	for _, rec := range r.records {
		if rec.result.Unknown && rec.op.asks() {
			continue // it has changed nothing and told nothing
		}
		v.Operations++
		if rec.result.Unknown {
			v.Unknown++
		}
		p := rec.op.partition()
		parts[p] = append(parts[p], rec)
	}
	names := make([]string, 0, len(parts))
	for p := range parts {
		names = append(names, p)
	}
	slices.Sort(names)
	v.Partitions = len(names)
	for _, p := range names {
		switch judge(parts[p], limit) {
		case porcupine.Illegal:
			v.Wrong = append(v.Wrong, p+"\n"+explain(parts[p], limit))
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, p)
		}
	}
	return v
}

// explain prints a history, cut off where it first cannot be explained: that is
// the shortest beginning that no order explains.
func explain(records []*record, limit time.Duration) string {
	byReturn := slices.Clone(records)
	slices.SortFunc(byReturn, func(a, b *record) int { return int(min(max(a.ret-b.ret, -1), 1)) })
	n, _ := slices.BinarySearchFunc(byReturn, true, func(rec *record, _ bool) int {
		if judge(before(records, rec.ret), limit) == porcupine.Illegal {
			return 1
		}
		return -1
	})
	n = min(n, len(byReturn)-1)
	var b strings.Builder
	for _, rec := range before(records, byReturn[n].ret) {
		ret := fmt.Sprint(rec.ret)
		if rec.ret == never {
			ret = "-"
		}
		fmt.Fprintf(&b, "  client %-3d %6d..%-6s %v: %v\n", rec.client, rec.call, ret, rec.op, rec.result)
	}
	return b.String()
}

// before is the history as it was known at a moment.
func before(records []*record, moment int64) []*record {
	var out []*record
	for _, rec := range records {
		switch {
		case rec.call > moment, rec.ret > moment && rec.op.asks():
		case rec.ret > moment:
			cut := *rec
			cut.ret, cut.result = never, Result{Unknown: true}
			out = append(out, &cut)
		default:
			out = append(out, rec)
		}
	}
	return out
}

func judge(records []*record, limit time.Duration) porcupine.CheckResult {
	history := make([]porcupine.Operation, 0, len(records))
	resizes := slices.DeleteFunc(slices.Clone(records), func(rec *record) bool { return rec.op.Kind != Write && rec.op.Kind != Truncate })
	for _, rec := range records {
		rec := *rec
		early := false // it may have been shown what its own client was still writing
		for _, w := range resizes {
			if rec.op.Kind != Read || w.call > rec.ret {
				continue
			}
			rec.op.beside = rec.op.beside || rec.call < w.ended
			early = early || w.client == rec.client && w.op.Kind == Write && (w.ended == 0 || rec.call < w.ended)
		}
		if early {
			continue
		}
		history = append(history, porcupine.Operation{ClientId: rec.client, Input: rec.op, Call: rec.call, Output: rec.result, Return: rec.ret})
	}
	if len(history) == 0 {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(modelOf(records[0].op.Kind), history, limit)
}
