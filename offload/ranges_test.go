package offload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quernfs/internal/block"
	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// memFile is a File in memory.
type memFile struct {
	File
	data []byte
}

func (f memFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(f.data).ReadAt(p, off)
}

// randomText has lines of all lengths, some far longer than a piece.
func randomText(r *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		line := r.IntN(60)
		switch r.IntN(20) {
		case 0:
			line = 0
		case 1:
			line = r.IntN(3000)
		}
		for range line {
			b = append(b, byte('a'+r.IntN(26)))
		}
		b = append(b, '\n')
	}
	b = b[:n]
	return b
}

// randomLayout cuts a file of size bytes into blocks of shards.
func randomLayout(r *rand.Rand, size int) (out []Piece) {
	shard := 1 + r.IntN(2000)
	block := uint64(0)
	for off := 0; off < size; {
		block++
		for i := 0; i < 4 && off < size; i++ {
			n := min(shard, size-off)
			p := Piece{Off: uint64(off), Len: uint64(n), Block: block}
			switch r.IntN(8) {
			case 0: // lost
			case 1:
				p.Block = 0
			case 2:
				p.Servers = []uint32{uint32(1 + r.IntN(6)), 7}
			default:
				p.Servers = []uint32{uint32(1 + r.IntN(6))}
			}
			out = append(out, p)
			off += n
		}
	}
	return out
}

// TestRangesHaveEachLineOnce cuts random files in all ways: what the tasks see
// is every line, whole and once; with split: bytes every byte.
func TestRangesHaveEachLineOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		how := []jobfile.Split{jobfile.SplitShard, jobfile.SplitBlock, jobfile.SplitLines, jobfile.SplitBytes}[round%4]
		_, records := how.Ranges()
		var parts []part
		text := map[uint64][]byte{}
		for i := range 1 + r.IntN(4) {
			data := randomText(r, r.IntN(30_000))
			if r.IntN(6) == 0 {
				data = nil
			}
			ino := uint64(i + 1)
			text[ino] = data
			in := &wire.TaskInput{Path: fmt.Sprintf("/f%d", i), Ino: ino, Size: uint64(len(data)), Version: 3}
			parts = append(parts, part{in, fit(randomLayout(r, len(data)), in.Size)})
		}
		most := uint64(1 + r.IntN(20_000))
		tasks := cutter{records: records}.cut(parts, how, most)
		seen := map[uint64][]string{} // by file: what tasks saw, line by line
		covered := map[uint64][]*wire.FileRange{}
		for n, task := range tasks {
			if int(task.N) != n || task.Phase != "map" || len(task.Inputs) == 0 {
				t.Fatalf("%s: task %v at %d", how, task, n)
			}
			for _, in := range task.Inputs {
				if in.Version != 3 || in.Size != uint64(len(text[in.Ino])) || in.Records != records {
					t.Fatalf("%s: %v", how, in)
				}
				if len(in.Ranges) == 0 {
					if in.Size != 0 {
						t.Fatalf("%s: a task has all of a file: %v", how, in)
					}
					continue
				}
				covered[in.Ino] = append(covered[in.Ino], in.Ranges...)
				f := memFile{data: text[in.Ino]}
				v, err := viewRanges(t.Context(), f, in)
				if err != nil {
					t.Fatal(err)
				}
				got := readView(t, r, v, f)
				seen[in.Ino] = append(seen[in.Ino], strings.SplitAfter(string(got), "\n")...)
			}
		}
		for ino, data := range text {
			slices.SortFunc(covered[ino], func(a, b *wire.FileRange) int { return int(a.Off) - int(b.Off) })
			at := uint64(0)
			for _, x := range covered[ino] {
				if x.Off != at || x.Len == 0 {
					t.Fatalf("%s: the range %v where %d was next", how, x, at)
				}
				at += x.Len
			}
			if at != uint64(len(data)) {
				t.Fatalf("%s: %d of %d bytes are in ranges", how, at, len(data))
			}
			got := strings.Join(seen[ino], "")
			if !records {
				if got != string(data) {
					t.Fatalf("%s: the bytes differ", how)
				}
				continue
			}
			lines := slices.DeleteFunc(strings.SplitAfter(string(data), "\n"), func(s string) bool { return s == "" })
			mine := slices.DeleteFunc(seen[ino], func(s string) bool { return s == "" })
			slices.Sort(lines)
			slices.Sort(mine)
			if !slices.Equal(lines, mine) {
				t.Fatalf("%s, %d bytes a task: %d lines, the tasks saw %d", how, most, len(lines), len(mine))
			}
		}
	}
}

// readView reads all of a view in random steps.
func readView(t *testing.T, r *rand.Rand, v *rangeView, f File) []byte {
	t.Helper()
	var got []byte
	for {
		p := make([]byte, 1+r.IntN(5000))
		n, err := v.readAt(t.Context(), f, p, int64(len(got)))
		got = append(got, p[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if int64(len(got)) != v.size {
		t.Fatalf("%d bytes, the size is %d", len(got), v.size)
	}
	return got
}

// TestShardTasks: one task for each server, which is named; large ones in
// equal parts, the servers in turn.
func TestShardTasks(t *testing.T) {
	in := &wire.TaskInput{Path: "/a", Ino: 1, Size: 1200}
	var pieces []Piece
	for i := range 12 {
		pieces = append(pieces, Piece{Off: uint64(100 * i), Len: 100, Block: uint64(1 + i/4), Servers: []uint32{uint32(1 + (i+i/4)%3)}})
	}
	describe := func(tasks []*wire.Task) (out []string) {
		for _, x := range tasks {
			s := fmt.Sprint(x.Inputs[0].Servers)
			for _, r := range x.Inputs[0].Ranges {
				s += fmt.Sprintf(" %d+%d", r.Off, r.Len)
			}
			out = append(out, s)
		}
		return out
	}
	got := describe(cutter{}.cut([]part{{in, pieces}}, jobfile.SplitShard, 1000))
	want := []string{
		"[1] 0+100 300+100 500+100 1000+100",
		"[2] 100+100 600+100 800+100 1100+100",
		"[3] 200+100 400+100 700+100 900+100",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	got = describe(cutter{}.cut([]part{{in, pieces}}, jobfile.SplitShard, 399))
	want = []string{
		"[1] 0+100 300+100", "[2] 100+100 600+100", "[3] 200+100 400+100",
		"[1] 500+100 1000+100", "[2] 800+100 1100+100", "[3] 700+100 900+100",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// Copies: each piece is read by one server, and they share the work.
	for i := range pieces {
		pieces[i].Servers = []uint32{1, 2, 3}
	}
	got = describe(cutter{}.cut([]part{{in, pieces[:6]}}, jobfile.SplitShard, 1000))
	want = []string{"[1] 0+100 300+100", "[2] 100+100 400+100", "[3] 200+100 500+100"}
	if in.Size != 1200 || !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestBlocksStayWhole: no task border inside of a block.
func TestBlocksStayWhole(t *testing.T) {
	in := &wire.TaskInput{Path: "/a", Ino: 1, Size: 1000}
	var pieces []Piece
	for i := range 10 {
		pieces = append(pieces, Piece{Off: uint64(100 * i), Len: 100, Block: uint64(1 + i/4), Servers: []uint32{uint32(i)}})
	}
	tasks := cutter{}.cut([]part{{in, pieces}}, jobfile.SplitBlock, 500)
	var got []string
	for _, x := range tasks {
		got = append(got, fmt.Sprint(x.Inputs[0].Ranges[0].Off, "+", x.Inputs[0].Ranges[0].Len))
	}
	if !slices.Equal(got, []string{"0+400", "400+400", "800+200"}) {
		t.Errorf("%q", got)
	}
	if tasks = (cutter{}).cut([]part{{in, pieces}}, jobfile.SplitBlock, 900); len(tasks) != 2 {
		t.Errorf("%v", tasks)
	}
}

// TestShardJob runs a job over ranges: the kernel sees lines, of a file under
// its own name.
func TestShardJob(t *testing.T) {
	r := newRig(t)
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	text := strings.Repeat("the quick brown fox\njumps\n", 200)
	ino := r.write("/text/a.txt", text)
	var pieces []Piece
	for off := 0; off < len(text); off += 111 {
		pieces = append(pieces, Piece{Off: uint64(off), Len: uint64(min(111, len(text)-off)), Block: uint64(off/444 + 1), Servers: []uint32{uint32(1 + off/111%6)}})
	}
	r.mu.Lock()
	r.layout[ino] = pieces
	r.mu.Unlock()
	id := r.submit("count", "version: 1\nkernel: wordcount\ninputs: /text\nsplit: shard\nreduce: {}\n")
	job, tasks := r.wait(id)
	if job.State != StateSucceeded || len(tasks) != 7 {
		t.Fatalf("%s: %s, %d tasks", job.State, job.Reason, len(tasks))
	}
	want := "200 brown\n200 fox\n200 jumps\n200 quick\n200 the\n"
	if got := r.outputs(id)["output"]; got != want {
		t.Errorf("%q", got)
	}
	id = r.submit("grep", "version: 1\nkernel: grep\nargs: [q.*fox$]\ninputs: /text\nsplit: lines\ntask_bytes: 4KiB\nreduce: {}\n")
	job, tasks = r.wait(id)
	got := r.outputs(id)["output"]
	if job.State != StateSucceeded || strings.Count(got, "/text/a.txt:") != 200 || strings.Count(got, ":the quick brown fox\n") != 200 || len(tasks) != 3 {
		t.Errorf("%s: %s, %d tasks, %.300q", job.State, job.Reason, len(tasks), got)
	}
}

// leafFile counts what its reads would fetch: whole leaves, but near the end of one
// only what lies from there on.
type leafFile struct {
	memFile
	fetched int64
}

func (f *leafFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	switch leaf := (end + block.LeafSize - 1) / block.LeafSize * block.LeafSize; {
	case leaf-off <= lineTail:
		f.fetched += leaf - off
	default:
		f.fetched += leaf - off/block.LeafSize*block.LeafSize
	}
	return f.memFile.ReadAt(ctx, p, off)
}

// TestLineStart: the beginning of a line of any length is found, and little more
// is fetched than it has.
func TestLineStart(t *testing.T) {
	const border = 32 * block.LeafSize
	text := bytes.Repeat([]byte("x"), border)
	for _, length := range []int{0, 1, 511, 512, 513, 2559, 2560, 8191, 8192, 8193, 60_000, 65_535, 65_536, 65_537, 70_000, 140_000, 262_143, 262_144, 262_145, 600_000, border} {
		data := slices.Clone(text)
		if length < border {
			data[border-length-1] = '\n'
		}
		f := &leafFile{memFile: memFile{data: data}}
		start, head, err := lineStart(t.Context(), f, border, 0)
		if err != nil || start != int64(border-length) {
			t.Errorf("%d bytes: it begins at %d, %v", length, start, err)
		}
		if length > 0 && length <= memLine/2 && !bytes.Equal(head, data[start:border]) || len(head) != 0 && len(head) != length {
			t.Errorf("%d bytes: %d of them are given", length, len(head))
		}
		more := block.LeafSize // fetched with the beginning
		if length >= lineLeafs*block.LeafSize {
			more = windowSize
		}
		if most := int64(length + 2*lineTail + more); f.fetched > most {
			t.Errorf("%d bytes: %d are fetched, at most %d wanted", length, f.fetched, most)
		}
		if length < lineStep && f.fetched > lineStep {
			t.Errorf("%d bytes: %d are fetched", length, f.fetched)
		}
	}
}
