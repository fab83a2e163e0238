package offload

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
)

// A task of a job with "memoise: true" has a digest of all that decides its
// result: the kernel, its arguments and parameters, and the inputs as they were
// pinned; and the owner, so that nobody is given what another could have
// changed. A task whose digest is that of an earlier one takes over that one's
// result, if it lies unchanged where it was left.

// memoise gives tasks their digests.
func memoise(spec *jobfile.Spec, job *wire.Job, uid uint32, tasks []*wire.Task) {
	// What a program does depends on what is installed on its host, too.
	if !spec.Memoise || spec.Map.Exec != nil || len(job.Kernels) == 0 || len(job.Kernels[0].Digest) == 0 {
		return
	}
	phase := "single"
	if spec.Reduce != nil {
		phase = "map"
	}
	for _, t := range tasks {
		h := stepDigest(job.Kernels[0], spec.Map, phase, uid)
		if spec.Combine != nil {
			if job.Combine == nil || len(job.Combine.Digest) == 0 {
				return
			}
			h.Write(stepDigest(job.Combine, jobfile.Inherit(*spec.Combine, spec.Map), "combine", uid).Sum(nil))
		}
		if spec.Array > 0 {
			number(h, uint64(t.N))
		}
		if n := headerLines(spec, job.Kernels[0]); n > 0 || spec.Header == 0 {
			word(h, "header")
			number(h, uint64(n))
		}
		for _, in := range t.Inputs {
			word(h, in.Path)
			number(h, in.Ino, in.Size, uint64(in.MtimeNs), uint64(len(in.Ranges)))
			if in.Records {
				number(h, 1)
			}
			for _, r := range in.Ranges {
				number(h, r.Off, r.Len)
			}
		}
		t.Memo = h.Sum(nil)
	}
}

// memoiseReduce gives the reduce task its digest, from those of the map tasks.
func memoiseReduce(spec *jobfile.Spec, job *wire.Job, t *wire.Task, maps []*taskState) {
	if !spec.Memoise || spec.Reduce == nil || spec.Reduce.Exec != nil || len(job.Kernels) < 2 || len(job.Kernels[1].Digest) == 0 {
		return
	}
	h := stepDigest(job.Kernels[1], jobfile.Inherit(*spec.Reduce, spec.Map), "reduce", job.Cred.GetUid())
	for _, x := range maps {
		if x == nil || len(x.t.Memo) == 0 {
			return
		}
		h.Write(x.t.Memo)
	}
	t.Memo = h.Sum(nil)
}

func stepDigest(ref *wire.KernelRef, step jobfile.Step, phase string, uid uint32) hash.Hash {
	h := sha256.New()
	word(h, "quern task v1")
	h.Write(ref.Digest)
	word(h, ref.Name) // the module's first argument
	word(h, string(ref.Manifest))
	word(h, phase)
	number(h, uint64(uid), uint64(len(ref.Args)), uint64(len(step.Args)), uint64(len(step.Params)))
	for _, a := range ref.Args {
		word(h, a)
	}
	for _, a := range step.Args {
		word(h, a)
	}
	for _, p := range step.Params {
		word(h, p.Key)
		word(h, p.Value)
	}
	return h
}

func word(h hash.Hash, s string) {
	number(h, uint64(len(s)))
	io.WriteString(h, s)
}

func number(h hash.Hash, values ...uint64) {
	for _, v := range values {
		h.Write(binary.LittleEndian.AppendUint64(nil, v))
	}
}

// remembered takes over the result of an earlier task, and says whether it did.
// Until it has, nothing is written to out.
func (r *attemptRun) remembered(ctx context.Context, out *taskOutput) (bool, error) {
	if len(r.task.Memo) == 0 {
		return false, nil
	}
	ans, err := ask(ctx, r.agent.cfg.Meta, &wire.Query{Cred: rootCred, Op: &wire.Query_GetMemo{GetMemo: &wire.GetMemo{Key: r.task.Memo}}})
	if errors.Is(err, wire.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for an earlier result: %w", err)
	}
	m := ans.GetMemo()
	f, err := r.agent.cfg.Files.OpenInode(ctx, m.GetIno())
	if err != nil {
		return false, nil // it has been removed
	}
	defer f.Close()
	a := f.Inode().GetAttr()
	if a.GetSize() != m.Size || a.GetMtimeNs() != m.MtimeNs || a.GetNlink() == 0 {
		return false, nil // it is somebody's own file by now
	}
	buf := make([]byte, min(m.Size, 256<<10))
	for off := int64(0); off < int64(m.Size); {
		n, err := readExactly(ctx, f, buf[:min(int64(len(buf)), int64(m.Size)-off)], off)
		if err == nil {
			_, err = out.Write(buf[:n])
		}
		if err != nil {
			return false, fmt.Errorf("copying an earlier result: %w", err)
		}
		off += int64(n)
	}
	r.report.MemoJob, r.report.BytesOut = m.Job, uint64(out.size)
	return true, nil
}

// provenanceLimit bounds user.compute.provenance, in bytes.
const provenanceLimit = 2 << 10

// provenance says what made a result, for the attribute of its file.
func (r *attemptRun) provenance(ref *wire.KernelRef, step jobfile.Step) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s sha256:%x\n", ref.Name, ref.Digest)
	// The result may be given to others; what it was asked for is in the job, which the
	// owner lets be seen or not.
	if r.job.Visibility == wire.Visibility_EVERYBODY {
		writeAsked(&b, "", ref, step, shortened)
	}
	fmt.Fprintf(&b, "job %d %s sha256:%x\n", r.job.Id, r.job.Name, r.job.Digest)
	fmt.Fprintf(&b, "task %d attempt %d on %s device %s\n", r.task.N, r.task.Attempt, r.report.Host, r.report.Device)
	if r.report.MemoJob != 0 {
		fmt.Fprintf(&b, "remembered from job %d\n", r.report.MemoJob)
	}
	for i, in := range r.task.Inputs {
		line := fmt.Sprintf("input ino %d version %d bytes %d %s\n", in.Ino, in.Version, in.Size, in.Path)
		if in.Ino == 0 {
			line = "part " + in.Path + "\n"
		}
		if b.Len()+len(line) > provenanceLimit {
			fmt.Fprintf(&b, "and %s, see provenance of the job\n", count(len(r.task.Inputs)-i, "more input"))
			break
		}
		b.WriteString(line)
	}
	return []byte(b.String())
}

// writeAsked writes the arguments and params of a step, a line each.
func writeAsked(b *strings.Builder, indent string, ref *wire.KernelRef, step jobfile.Step, show func(string) string) {
	for _, a := range slices.Concat(ref.Args, step.Args) {
		fmt.Fprintf(b, "%sarg %q\n", indent, show(a))
	}
	for _, p := range step.Params {
		fmt.Fprintf(b, "%sparam %s=%q\n", indent, p.Key, show(p.Value))
	}
}

func shortened(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
