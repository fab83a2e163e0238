package fs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &FS{}
		fs.ctx, fs.cancel = context.WithCancel(t.Context())
		defer fs.cancel()
		ctx, done := fs.bound()
		child, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		at := time.Now()
		<-child.Done()
		if d := time.Since(at); d != opTimeout || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("after %v: %v", d, ctx.Err())
		}
		done()

		ctx, done = fs.bound()
		done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("ended before it was looked at: %v", ctx.Err())
		}
		ctx, done = fs.bound()
		defer done()
		fs.cancel()
		<-ctx.Done()
	})
}
