package offload

import (
	"context"
	"io"
	"strings"
	"testing"

	"quernfs/internal/wire"
)

// TestAccountLine has lines in the format of sacct -P, which no name can break.
func TestAccountLine(t *testing.T) {
	const sec = int64(1e9)
	a := &wire.Account{
		Job: 7, Name: "a|b\n8|x\\", Uid: 1000, Kernel: "exec sh", State: StateFailed, SubmittedNs: 1767225600 * sec, EndedNs: (1767225600 + 90061) * sec,
		Tasks: 3, Memory: 256 << 20, Usage: &wire.JobUsage{
			TaskNs: 61_600_000_000, CpuNs: 3_599_999_999_999, PeakMemory: 1025, PeakActive: 2, StartedNs: 1767225600 * sec, Exit: 64,
		},
	}
	const want = `7|a\174b\0128\174x\134|ann|exec sh|FAILED|2026-01-01T00:00:00|2026-01-01T00:00:00|2026-01-02T01:01:01|1-01:01:01|62|2|3|262144K|2K|01:00:00|64:0` + "\n"
	if got := accountLine(a, "ann"); got != want {
		t.Errorf("%s, wanted\n%s", got, want)
	}
	never := &wire.Account{Job: 8, Name: "n", State: StateExpired, SubmittedNs: sec, EndedNs: 2 * sec, Tasks: 1}
	if got := accountLine(never, "0"); got != "8|n|0||DEADLINE|1970-01-01T00:00:01|None|1970-01-01T00:00:02|00:00:00|0|0|1|||00:00:00|0:0\n" {
		t.Errorf("%q", got)
	}
	if fields := strings.Count(accountingHeader, "|"); strings.Count(want, "|") != fields {
		t.Errorf("%d separators, the header has %d", strings.Count(want, "|"), fields)
	}
}

// TestAccounting: what jobs have used is told to their owners, and all of it to root,
// in the file and through the mount, also once the jobs are forgotten.
func TestAccounting(t *testing.T) {
	r := newRig(t)
	r.write("/in/a", "one two one\n")
	r.lead(SchedulerConfig{})
	r.startAgent("a", nil)
	o := NewOverlay(OverlayConfig{Files: r.files(), Meta: r})
	s := Submitter{Files: r.files(), Meta: r}
	run := func(uid uint32, name, spec string) uint64 {
		t.Helper()
		id, err := s.Submit(t.Context(), &wire.Cred{Uid: uid, Gid: uid}, name, []byte("version: 1\ninputs: /in/a\n"+spec))
		if err != nil {
			t.Fatal(err)
		}
		r.wait(id)
		return id
	}
	first := run(1000, "first", "kernel: wordcount\narray: 3\nmemory: 300MiB\n")
	run(1001, "other", "kernel: sha256sum\n")
	run(1000, "wrong", "kernel: grep\nargs: ['(']\n")
	if done, err := RemoveJob(t.Context(), r, rootCred, first, 10); err != nil || !done {
		t.Fatal(done, err)
	}

	attr, err := o.Lookup(t.Context(), rootCred, wire.ComputeIno, "accounting")
	if err != nil || attr.Mode != typeReg|0o444 {
		t.Fatalf("%v, %v", attr, err)
	}
	read := func(uid uint32) []string {
		t.Helper()
		f, err := o.Open(t.Context(), &wire.Cred{Uid: uid, Gid: uid}, attr.Ino, false)
		if err != nil {
			t.Fatal(err)
		}
		var whole strings.Builder
		for p, off := make([]byte, 50), int64(0); ; {
			n, err := f.ReadAt(t.Context(), p, off)
			whole.Write(p[:n])
			if off += int64(n); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		part := make([]byte, 20) // and back to the beginning
		if n, err := f.ReadAt(t.Context(), part, 6); err != nil || string(part[:n]) != whole.String()[6:6+n] {
			t.Errorf("%q, %v", part[:n], err)
		}
		return strings.Split(strings.TrimSuffix(whole.String(), "\n"), "\n")
	}
	own := read(1000)
	if len(own) != 3 || own[0]+"\n" != accountingHeader {
		t.Fatalf("%q", own)
	}
	f := strings.Split(own[1], "|")
	if f[1] != "first" || !strings.HasPrefix(f[3], "wordcount@") || f[4] != "COMPLETED" || f[11] != "3" || f[12] != "307200K" || f[15] != "0:0" {
		t.Errorf("%q", f)
	}
	if f := strings.Split(own[2], "|"); f[1] != "wrong" || f[4] != "FAILED" || f[15] == "0:0" {
		t.Errorf("%q", f)
	}
	if all, other, stranger := read(0), read(1001), read(5); len(all) != 4 || len(other) != 2 || !strings.Contains(other[1], "|other|") || len(stranger) != 1 {
		t.Errorf("%q\n%q\n%q", all, other, stranger)
	}
	if _, err := o.Open(t.Context(), rootCred, attr.Ino, true); wire.CodeOf(err) != wire.Denied {
		t.Errorf("to write: %v", err)
	}

	api, err := o.Lookup(t.Context(), rootCred, wire.ComputeIno, "api")
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]uint64{0: 3, 1000: 2, 1001: 1, 5: 0} {
		f, err := o.Open(t.Context(), &wire.Cred{Uid: uid, Gid: uid}, api.Ino, true)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMountMeta(struct {
			io.Reader
			io.Writer
		}{&opened{f: f}, &opened{f: f}})
		for _, q := range []*wire.ListUsage{{Everybody: true}, {Everybody: true, Uid: 1000, Limit: 1}} {
			jobs, bytes := uint64(0), uint64(0)
			if err := EachUsage(context.Background(), m, q, func(s *wire.UsageSum) {
				jobs += s.Jobs
				bytes += s.BytesIn
			}); err != nil || jobs != want || (bytes > 0) != (want > 0) {
				t.Errorf("uid %d: %d jobs that read %d bytes, %v", uid, jobs, bytes, err)
			}
		}
		lines := uint64(0)
		if err := EachAccount(context.Background(), m, &wire.ListAccounts{Everybody: true, Uid: 1000, Limit: 1}, func(*wire.Account) error {
			lines++
			return nil
		}); err != nil || lines != want {
			t.Errorf("uid %d: %d accounts, %v", uid, lines, err)
		}
	}
}
