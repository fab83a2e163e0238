package offload

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// shardBytes is how much of one server's shards one task gets.
const shardBytes = 128 << 20

// part is an input file and where its bytes lie.
type part struct {
	in     *wire.TaskInput
	pieces []Piece
}

// layouts asks where the bytes of all files lie.
func layouts(ctx context.Context, src Files, files []*wire.TaskInput) ([]part, error) {
	parts := make([]part, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, f := range files {
		parts[i].in = f
		if f.Size == 0 {
			continue
		}
		g.Go(func() (err error) {
			parts[i].pieces, err = src.Layout(ctx, f.Ino)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range parts {
		parts[i].pieces = fit(parts[i].pieces, parts[i].in.Size)
	}
	return parts, nil
}

// fit cuts pieces to the size that was pinned, and covers what they lack.
func fit(pieces []Piece, size uint64) []Piece {
	var out []Piece
	at := uint64(0)
	for _, p := range pieces {
		if p.Off != at || p.Off >= size {
			break
		}
		p.Len = min(p.Len, size-p.Off)
		out = append(out, p)
		at += p.Len
	}
	if at < size {
		out = append(out, Piece{Off: at, Len: size - at})
	}
	return out
}

// cutter cuts files into ranges, in order.
type cutter struct {
	records bool // ranges are of lines
	tasks   []*wire.Task
	last    *wire.Task
	bytes   uint64            // of last
	held    map[uint32]uint64 // bytes of last by server
}

// cut makes tasks of about bytes each.
func (c cutter) cut(parts []part, how jobfile.Split, bytes uint64) []*wire.Task {
	if how == jobfile.SplitShard {
		return c.shards(parts, bytes)
	}
	for _, p := range parts {
		if p.in.Size == 0 {
			c.add(p.in, Piece{}, nil)
		}
		for i, j := 0, 0; i < len(p.pieces); i = j {
			for j = i + 1; j < len(p.pieces) && p.pieces[i].Block != 0 && p.pieces[j].Block == p.pieces[i].Block; j++ {
			}
			if how == jobfile.SplitBlock {
				c.addWhole(p.in, p.pieces[i:j], bytes)
			} else {
				c.addCut(p.in, p.pieces[i:j], bytes)
			}
		}
	}
	c.end()
	return c.tasks
}

// addWhole adds the pieces of one block; if they do not fit, to a new task.
func (c *cutter) addWhole(in *wire.TaskInput, pieces []Piece, most uint64) {
	n := uint64(0)
	for _, x := range pieces {
		n += x.Len
	}
	if c.bytes > 0 && c.bytes+n > most {
		c.end()
	}
	for _, x := range pieces {
		c.add(in, x, x.Servers)
	}
}

// addCut adds pieces, cut where a task is full.
func (c *cutter) addCut(in *wire.TaskInput, pieces []Piece, most uint64) {
	for _, x := range pieces {
		for x.Len > 0 {
			if c.bytes >= most {
				c.end()
			}
			n := min(x.Len, most-c.bytes)
			c.add(in, Piece{x.Off, n, x.Block, x.Servers}, x.Servers)
			x.Off, x.Len = x.Off+n, x.Len-n
		}
	}
}

// shards makes tasks of what each server holds. Those of different servers
// alternate, so that the first few tasks are something for every host. Of
// several servers that hold the same that with the least to do takes it.
func (c cutter) shards(parts []part, bytes uint64) []*wire.Task {
	load := map[uint32]uint64{}
	type piece struct {
		in *wire.TaskInput
		Piece
	}
	of := map[uint32][]piece{}
	var empty []*wire.TaskInput
	for _, p := range parts {
		if p.in.Size == 0 {
			empty = append(empty, p.in)
		}
		for _, x := range p.pieces {
			server := uint32(0)
			if len(x.Servers) > 0 {
				server = slices.MinFunc(x.Servers, func(a, b uint32) int {
					return cmp.Or(cmp.Compare(load[a], load[b]), cmp.Compare(a, b))
				})
			}
			load[server] += x.Len
			of[server] = append(of[server], piece{p.in, x})
		}
	}
	var servers []uint32
	for s := range of {
		servers = append(servers, s)
	}
	slices.Sort(servers)
	byServer := make([][]*wire.Task, len(servers))
	most := 0
	for i, s := range servers {
		k := cutter{records: c.records}
		n := (load[s] + bytes - 1) / bytes
		each := (load[s] + n - 1) / n // equal ones
		for _, x := range of[s] {
			if k.bytes > 0 && k.bytes+x.Len > each && uint64(len(k.tasks))+1 < n {
				k.end()
			}
			var where []uint32
			if s != 0 {
				where = []uint32{s}
			}
			k.add(x.in, x.Piece, where)
		}
		k.end()
		byServer[i] = k.tasks
		most = max(most, len(k.tasks))
	}
	for i := range most {
		for _, tasks := range byServer {
			if i < len(tasks) {
				tasks[i].N = uint32(len(c.tasks))
				c.tasks = append(c.tasks, tasks[i])
			}
		}
	}
	if len(c.tasks) == 0 {
		for _, in := range empty {
			c.add(in, Piece{}, nil)
		}
		c.end()
	}
	return c.tasks
}

// add puts a range into the last task. A range that follows the one before
// makes it longer; an empty file comes whole.
func (c *cutter) add(in *wire.TaskInput, x Piece, servers []uint32) {
	if c.last == nil {
		c.last, c.held = &wire.Task{Phase: "map"}, map[uint32]uint64{}
	}
	t := c.last
	n := len(t.Inputs)
	if n == 0 || t.Inputs[n-1].Ino != in.Ino || t.Inputs[n-1].Path != in.Path {
		t.Inputs = append(t.Inputs, &wire.TaskInput{
			Path: in.Path, Ino: in.Ino, Size: in.Size, Version: in.Version, MtimeNs: in.MtimeNs, Records: c.records,
		})
		n++
	}
	for _, s := range servers {
		c.held[s] += x.Len
	}
	c.bytes += x.Len
	if x.Len == 0 {
		return
	}
	last := t.Inputs[n-1]
	if k := len(last.Ranges); k > 0 && last.Ranges[k-1].Off+last.Ranges[k-1].Len == x.Off {
		last.Ranges[k-1].Len += x.Len
		return
	}
	last.Ranges = append(last.Ranges, &wire.FileRange{Off: x.Off, Len: x.Len})
}

// end closes the last task.
func (c *cutter) end() {
	if c.last == nil {
		return
	}
	servers := most(c.held, 6)
	for _, in := range c.last.Inputs {
		in.Servers = servers
	}
	c.last.N = uint32(len(c.tasks))
	c.tasks = append(c.tasks, c.last)
	c.last, c.bytes, c.held = nil, 0, nil
}

// inputBytes is how much of an input a task reads.
func inputBytes(in *wire.TaskInput) uint64 {
	if len(in.Ranges) == 0 {
		return in.Size
	}
	n := uint64(0)
	for _, r := range in.Ranges {
		n += r.Len
	}
	return n
}
