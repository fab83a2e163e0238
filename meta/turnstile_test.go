package meta

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"quernfs/internal/wire"
)

// TestTurns: one user's storm of commands, from one session or many, costs another
// user two turns, and another session of his own as many.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurnstile(2, 1<<20)
		var order []string
		release := make(chan struct{})
		ask := func(name string, who payer, bytes int) {
			go func() {
				done, err := turns.take(t.Context(), who, bytes)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, name) // one at a time: see below
				<-release
				done()
			}()
			synctest.Wait()
		}
		for i := range 50 {
			ask("a", payer{1, uint64(i % 3)}, 100)
		}
		ask("b", payer{2, 9}, 100)
		ask("b", payer{2, 9}, 100)
		ask("c", payer{1, 7}, 100)
		for range 53 {
			release <- struct{}{}
			synctest.Wait()
		}
		got := strings.Join(order, "")
		if len(got) != 53 || strings.LastIndex(got, "b") > 6 || strings.Index(got, "c") > 10 {
			t.Errorf("%d turns: %s", len(got), got)
		}
		if turns.count != 0 || turns.bytes != 0 || len(turns.users.of) != 0 {
			t.Errorf("%+v", turns)
		}
	})
}

// TestTurnsBytes: large work costs more turns; what is larger than all that may go
// on goes on alone.
func TestTurnsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurnstile(100, 64<<10)
		var mu sync.Mutex // guards order
		var order []string
		release := make(chan struct{})
		ask := func(name string, uid uint32, bytes int) {
			go func() {
				done, err := turns.take(t.Context(), payer{uid: uid}, bytes)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				<-release
				done()
			}()
			synctest.Wait()
		}
		ask("huge", 1, 1<<20)
		for range 4 {
			ask("large", 1, 40<<10)
		}
		for range 12 {
			ask("small", 2, 100)
		}
		if fmt.Sprint(order) != "[huge]" {
			t.Errorf("beside what is larger than all: %v", order)
		}
		for range 17 {
			release <- struct{}{}
			synctest.Wait()
		}
		small, large := 0, 0
		for _, name := range order {
			if name == "small" {
				small++
			} else if large++; large == 3 && small < 10 {
				t.Errorf("two large ones and then %d small: %v", small, order)
			}
		}
	})
}

// TestTurnsGivenUp: who gives up waiting takes no turn from others.
func TestTurnsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurnstile(1, 1<<20)
		done, err := turns.take(t.Context(), payer{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 5 {
			go func() {
				if _, err := turns.take(ctx, payer{uid: 3}, 1); wire.CodeOf(err) == wire.OK {
					t.Error("a turn for nobody")
				}
			}()
		}
		got := make(chan error, 1)
		go func() {
			_, err := turns.take(t.Context(), payer{uid: 4}, 1)
			got <- err
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		done()
		if err := <-got; err != nil {
			t.Error(err)
		}
		if turns.count != 1 || len(turns.users.of) != 0 {
			t.Errorf("%+v", turns)
		}
	})
}
