package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rounds is how often a race is run: often with QUERN_LONG=1.
func rounds(short, long int) int {
	if os.Getenv("QUERN_LONG") != "" {
		return long
	}
	return short
}

// A writer extends a file by a record, and then writes the record's number at the
// beginning. Who reads the number on another mount finds the whole record: the
// size that its kernel has is never older than the lease.
func TestGrowingFileIsReadWhole(t *testing.T) {
	a, b := two(t)
	const record, most = 40_000, 500
	path := filepath.Join(a, "f")
	w, err := os.Create(path)
	must(t, err)
	defer w.Close()
	number := func(n int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
	_, err = w.WriteAt(number(0), 0)
	must(t, err)
	var readers sync.WaitGroup
	var written sync.WaitGroup
	stop := make(chan struct{})
	short, reads := 0, 0
	var mu sync.Mutex
	for range 2 {
		readers.Go(func() {
			r, err := os.Open(filepath.Join(b, "f"))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			head, buf := make([]byte, 8), make([]byte, record)
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.ReadAt(head, 0); err != nil {
					t.Errorf("the number: %v", err)
					return
				}
				n := binary.LittleEndian.Uint64(head)
				if n == last {
					continue
				}
				last = n
				if n == 0 {
					continue
				}
				got, err := r.ReadAt(buf, int64(8+(n-1)%most*record))
				if _, err := r.ReadAt(head, 0); err != nil {
					t.Errorf("the number: %v", err)
					return
				}
				if now := binary.LittleEndian.Uint64(head); now == 0 || (now-1)/most != (n-1)/most {
					continue // it has begun anew
				}
				mu.Lock()
				reads++
				switch {
				case errors.Is(err, io.EOF) && got < record:
					short++
					if short < 5 {
						t.Logf("record %d: %d bytes", n, got)
					}
				case err != nil:
					t.Error(err)
				case !bytes.Equal(buf, bytes.Repeat([]byte{byte(n)}, record)):
					t.Errorf("record %d is wrong", n)
				}
				mu.Unlock()
			}
		})
	}
	written.Go(func() {
		defer close(stop)
		for i := 1; i <= rounds(400, 10_000); i++ {
			slot := (i - 1) % most
			if slot == 0 && i > 1 { // begins anew, so that it does not fill the disk
				if _, err := w.WriteAt(number(0), 0); err != nil {
					t.Error(err)
					return
				}
				if err := w.Truncate(8); err != nil {
					t.Error(err)
					return
				}
			}
			if _, err := w.WriteAt(bytes.Repeat([]byte{byte(i)}, record), int64(8+slot*record)); err != nil {
				t.Error(err)
				return
			}
			if _, err := w.WriteAt(number(i), 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	written.Wait()
	readers.Wait()
	if reads == 0 {
		t.Error("nothing was read")
	}
	if short > 0 {
		t.Errorf("%d of %d reads were short", short, reads)
	}
	t.Logf("%d reads", reads)
}

// Many workers claim a job by a rename of one name to another: one has it.
func TestClaimByRenameHasOneWinner(t *testing.T) {
	a, b := two(t)
	const workers = 4
	for i := range rounds(150, 1000) {
		from, to := "job", "claimed"
		write1(t, filepath.Join([]string{a, b}[i%2], from), "x")
		for _, m := range []string{a, b} {
			_, err := os.Stat(filepath.Join(m, from))
			must(t, err)
		}
		var won [workers]bool
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for k := range workers {
			wg.Go(func() {
				m := []string{a, b}[k%2]
				<-begin
				err := os.Rename(filepath.Join(m, from), filepath.Join(m, to))
				if won[k] = err == nil; err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("round %d: %v", i, err)
				}
			})
		}
		close(begin)
		wg.Wait()
		n := 0
		for _, w := range won {
			if w {
				n++
			}
		}
		if n != 1 {
			t.Errorf("round %d: %d winners %v", i, n, won)
		}
		must(t, os.Remove(filepath.Join(b, to)))
	}
}

// A name is made with O_EXCL and removed, by two mounts at once: each attempt to
// make it succeeds or finds it there. One without O_EXCL always succeeds.
func TestCreateAgainstUnlink(t *testing.T) {
	for _, x := range []struct {
		name string
		flag int
		may  error
	}{{"exclusive", os.O_EXCL, os.ErrExist}, {"not exclusive", 0, nil}, {"truncating", os.O_TRUNC, nil}} {
		t.Run(x.name, func(t *testing.T) {
			a, b := two(t)
			n := rounds(200, 10_000)
			left := make(chan int, n)
			for i := range n {
				left <- i
			}
			close(left)
			var made, there atomic.Int64
			run(t, 10*time.Minute, 4, func(k int) {
				path := filepath.Join([]string{a, b}[k%2], "lock")
				for range left {
					f, err := os.OpenFile(path, os.O_CREATE|x.flag|os.O_WRONLY, 0o644)
					switch {
					case err == nil:
						made.Add(1)
						_, err := f.Write([]byte("x"))
						if err = errors.Join(err, f.Close()); err != nil {
							t.Errorf("write: %v", err)
						}
					case x.may != nil && errors.Is(err, x.may):
						there.Add(1)
					default:
						t.Errorf("create: %v", err)
					}
					if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Errorf("remove: %v", err)
					}
				}
			})
			t.Logf("%d made, %d were there", made.Load(), there.Load())
		})
	}
}
