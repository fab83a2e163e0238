package offload

import (
	"context"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"quernfs/internal/wire"
)

// EachAccount calls f with the accounts that q asks for, by when the jobs ended, until
// it returns an error. q is changed.
func EachAccount(ctx context.Context, m Meta, q *wire.ListAccounts, f func(*wire.Account) error) error {
	for {
		page, err := accountPage(ctx, m, q)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, a := range page {
			if err := f(a); err != nil {
				return err
			}
		}
	}
}

// accountPage returns some accounts, none at the end, and has q ask for those that
// follow.
func accountPage(ctx context.Context, m Meta, q *wire.ListAccounts) ([]*wire.Account, error) {
	ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ListAccounts{ListAccounts: q}})
	if err != nil {
		return nil, err
	}
	page := ans.GetAccounts().GetAccounts()
	if n := len(page); n > 0 {
		q.SinceNs, q.AfterJob = page[n-1].EndedNs, page[n-1].Job
	}
	return page, nil
}

// EachUsage calls f with the sums that q asks for, by day, user and kernel. q is
// changed.
func EachUsage(ctx context.Context, m Meta, q *wire.ListUsage, f func(*wire.UsageSum)) error {
	for {
		ans, err := ask(ctx, m, &wire.Query{Cred: rootCred, Op: &wire.Query_ListUsage{ListUsage: q}})
		if err != nil {
			return err
		}
		for _, s := range ans.GetUsage().GetSums() {
			f(s)
		}
		if q.After = ans.GetUsage().GetNext(); len(q.After) == 0 {
			return nil
		}
	}
}

// UserName is what a user is called on this host: his number, if he has no name.
func UserName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil && u.Username != "" {
		return u.Username
	}
	return number
}

// accountingHeader names the fields of /.compute/accounting as sacct -P does.
const accountingHeader = "JobID|JobName|User|Partition|State|Submit|Start|End|Elapsed|CPUTimeRAW|AllocCPUS|NTasks|ReqMem|MaxRSS|TotalCPU|ExitCode\n"

// accountLine is the line of an account. Times are UTC.
func accountLine(a *wire.Account, user string) string {
	u := a.Usage
	var elapsed time.Duration
	if u.GetStartedNs() != 0 {
		elapsed = max(0, time.Duration(a.EndedNs-u.GetStartedNs()))
	}
	return strings.Join([]string{
		strconv.FormatUint(a.Job, 10), inColumn(a.Name), inColumn(user), inColumn(a.Kernel), accountState(a.State),
		accountTime(a.SubmittedNs), accountTime(u.GetStartedNs()), accountTime(a.EndedNs), accountSpan(elapsed),
		strconv.FormatUint((u.GetTaskNs()+5e8)/1e9, 10), strconv.FormatUint(uint64(u.GetPeakActive()), 10), strconv.FormatUint(uint64(a.Tasks), 10),
		kibibytes(a.Memory), kibibytes(u.GetPeakMemory()), accountSpan(time.Duration(u.GetCpuNs())), accountExit(a),
	}, "|") + "\n"
}

// inColumn is a text in which nothing ends the column or the line: such bytes, and the
// backslash, are written as \NNN.
func inColumn(s string) string {
	if !strings.ContainsFunc(s, breaksColumn) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; breaksColumn(rune(c)) {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func breaksColumn(r rune) bool { return r == '|' || r == '\\' || r < ' ' || r == 0x7f }

func accountState(state string) string {
	switch state {
	case StateSucceeded:
		return "COMPLETED"
	case StateExpired:
		return "DEADLINE"
	}
	return strings.ToUpper(state)
}

func accountTime(ns int64) string {
	if ns == 0 {
		return "None"
	}
	return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05")
}

// accountSpan is [DAYS-]HH:MM:SS.
func accountSpan(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

func kibibytes(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint((n+1023)/1024, 10) + "K"
}

// accountExit is the exit status of a task that has failed, and no signal.
func accountExit(a *wire.Account) string {
	code := a.Usage.GetExit()
	if a.State == StateFailed && code == 0 {
		code = 1
	}
	return fmt.Sprintf("%d:0", code)
}

// accountingFile is one open of .compute/accounting: a line for each end of a job of
// who has opened it, of all jobs if that is root. It is fetched as it is read.
type accountingFile struct {
	meta Meta
	all  wire.ListAccounts

	mu    sync.Mutex
	next  *wire.ListAccounts // what follows text; guarded by mu, as all below
	text  []byte
	at    int64 // of text in the file
	names map[uint32]string
}

func newAccountingFile(m Meta, cred *wire.Cred) *accountingFile {
	f := &accountingFile{meta: m, names: map[uint32]string{}}
	f.all.Uid, f.all.Everybody = cred.GetUid(), cred.GetUid() == 0
	f.begin()
	return f
}

// begin goes back to the beginning. mu is held.
func (f *accountingFile) begin() {
	f.next = &wire.ListAccounts{Uid: f.all.Uid, Everybody: f.all.Everybody}
	f.text, f.at = []byte(accountingHeader), 0
}

func (f *accountingFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < f.at {
		f.begin()
	}
	for off >= f.at+int64(len(f.text)) {
		page, err := accountPage(ctx, f.meta, f.next)
		if err != nil {
			return 0, err
		}
		if len(page) == 0 {
			return 0, io.EOF
		}
		f.at += int64(len(f.text))
		f.text = f.text[:0]
		for _, a := range page {
			name, ok := f.names[a.Uid]
			if !ok {
				name = UserName(a.Uid)
				f.names[a.Uid] = name
			}
			f.text = append(f.text, accountLine(a, name)...)
		}
	}
	return copy(p, f.text[max(0, off-f.at):]), nil
}

func (f *accountingFile) Write(context.Context, []byte) (int, error) {
	return 0, &wire.Error{Code: wire.Denied, Op: "write"}
}

func (f *accountingFile) Close() error { return nil }
