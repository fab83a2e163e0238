package meta

import (
	"context"

	"quernfs/internal/wire"
)

// turn is for what one does for all, and what may take as long as the log
// does: unlike with a mutex, those who wait can give up.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context, op string) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &wire.Error{Code: wire.CodeOf(ctx.Err()), Op: op, Err: ctx.Err()}
	}
}

func (t turn) pass() { <-t }
