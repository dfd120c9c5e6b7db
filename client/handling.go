package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A handling is the context of a handler whose caller waits until a deadline. What the caller waits for is the header of
// the response, so the deadline ends with that. A timer of our own sees to it, since a deadline of package context lasts.
type handling struct {
	context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	deadline time.Time
	answered atomic.Bool // in time
}

func newHandling(ctx context.Context, left time.Duration) *handling {
	h := &handling{deadline: time.Now().Add(left)}
	h.Context, h.cancel = context.WithCancelCause(ctx)
	h.timer = time.AfterFunc(left, h.expire)
	return h
}

// expire is called by the timer.
func (h *handling) expire() { h.cancel(context.DeadlineExceeded) }

// answer ends the deadline, if that has not passed. A nil handling has none.
func (h *handling) answer() {
	if h != nil && h.timer.Stop() {
		h.answered.Store(true)
	}
}

// end releases what the handling holds.
func (h *handling) end() {
	h.timer.Stop()
	h.cancel(nil)
}

// Deadline implements context.Context. Once the header is written it is that of the server, if that has one.
func (h *handling) Deadline() (time.Time, bool) {
	theirs, ok := h.Context.Deadline()
	if h.answered.Load() || ok && theirs.Before(h.deadline) {
		return theirs, ok
	}
	return h.deadline, true
}

// Err implements context.Context. Time that has run out is told as such, though the child was only cancelled.
func (h *handling) Err() error {
	err := h.Context.Err()
	if err != nil && errors.Is(context.Cause(h.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}
