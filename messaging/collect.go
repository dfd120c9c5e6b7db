package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Batch returns a Handler that collects concurrent calls and hands them to h together: when size of them have gathered,
// or wait after the first. Each message keeps its own lease, retries and verdict: h returns one error per message, in
// their order, or nil when all are handled.
//
// The consumer's Concurrency bounds how many can gather, so it should be size or more. With an Ordered consumer a batch
// has at most one message of a key. The context of h ends when those of all its messages have ended; its values are
// those of one of them. The Handler may serve several consumers.
func Batch(size int, wait time.Duration, h func(ctx context.Context, m []*Message) []error) (Handler, error) {
	var errs []error
	if size < 1 {
		errs = append(errs, fmt.Errorf("messaging: Batch: size is %d, less than 1", size))
	}
	if wait <= 0 {
		errs = append(errs, fmt.Errorf("messaging: Batch: wait is %v, not positive", wait))
	}
	if h == nil {
		errs = append(errs, errors.New("messaging: Batch: the function is nil"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c := &collector{size: size, wait: wait, h: h}
	return c.handle, nil
}

type collector struct {
	size int
	wait time.Duration
	h    func(context.Context, []*Message) []error

	mu      sync.Mutex
	current *collected // gathering; nil: none
}

// A collected is one batch. The call that completes it runs it; the others wait for it.
type collected struct {
	messages []*Message
	contexts []context.Context
	full     chan struct{} // closed when it gathers no more and somebody runs it
	done     chan struct{} // closed when errs is there
	errs     []error
}

//nolint:contextcheck // a batch has a context of its own, made of those of its messages
func (c *collector) handle(ctx context.Context, m *Message) error {
	b, first, runs := c.join(ctx, m)
	if runs {
		return c.runFor(b, m)
	}
	if first {
		t := time.NewTimer(c.wait)
		defer t.Stop()
		select {
		case <-b.full:
		case <-t.C:
			if c.take(b) {
				return c.runFor(b, m)
			}
		case <-ctx.Done():
			return c.leave(ctx, b, m)
		}
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return c.leave(ctx, b, m)
	}
	return b.verdict(m)
}

// join adds m to the batch that gathers. It reports whether m is its first, and whether it is full now.
func (c *collector) join(ctx context.Context, m *Message) (b *collected, first, runs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		c.current = &collected{full: make(chan struct{}), done: make(chan struct{})}
		first = true
	}
	b = c.current
	b.messages, b.contexts = append(b.messages, m), append(b.contexts, ctx)
	if len(b.messages) < c.size {
		return b, first, false
	}
	c.current = nil
	close(b.full)
	return b, first, true
}

// take ends the gathering of b. It reports whether the caller is to run it.
func (c *collector) take(b *collected) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != b {
		return false
	}
	c.current = nil
	close(b.full)
	return true
}

// leave takes a message whose context has ended out of a batch that has not begun. One that has begun decides about it:
// its handler may have done the work.
//
//nolint:contextcheck // as in handle
func (c *collector) leave(ctx context.Context, b *collected, m *Message) error {
	c.mu.Lock()
	if c.current != b {
		c.mu.Unlock()
		<-b.done
		return b.verdict(m)
	}
	i := slices.Index(b.messages, m)
	b.messages, b.contexts = slices.Delete(b.messages, i, i+1), slices.Delete(b.contexts, i, i+1)
	if i == 0 { // it had the timer: the others begin now rather than never
		c.current = nil
		close(b.full)
		c.mu.Unlock()
		c.run(b)
		return context.Cause(ctx)
	}
	c.mu.Unlock()
	return context.Cause(ctx)
}

// runFor runs a batch and returns the verdict on m.
func (c *collector) runFor(b *collected, m *Message) error {
	c.run(b)
	return b.verdict(m)
}

var errBatchBroken = errors.New("messaging: the batch handler panicked, or ended its goroutine")

// run calls the handler. If it panics, every message of the batch fails, and the panic goes on in this call.
func (c *collector) run(b *collected) {
	if len(b.messages) == 0 {
		close(b.done)
		return
	}
	ctx, end := together(b.contexts)
	defer end()
	errs, returned := []error(nil), false
	defer func() {
		if !returned {
			b.fail(errBatchBroken)
		}
		close(b.done)
	}()
	errs = c.h(ctx, b.messages)
	returned = true
	if len(errs) != 0 && len(errs) != len(b.messages) {
		b.fail(fmt.Errorf("messaging: the batch handler returned %d errors for %d messages", len(errs), len(b.messages)))
		return
	}
	b.errs = errs
}

func (b *collected) fail(err error) {
	b.errs = make([]error, len(b.messages))
	for i := range b.errs {
		b.errs[i] = err
	}
}

func (b *collected) verdict(m *Message) error {
	if len(b.errs) == 0 {
		return nil
	}
	return b.errs[slices.Index(b.messages, m)]
}

// together returns a context that ends when all of them have ended, with the cause of the last.
func together(all []context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(all[0]))
	var mu sync.Mutex
	left := len(all)
	stops := make([]func() bool, len(all))
	for i, one := range all {
		stops[i] = context.AfterFunc(one, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel(context.Cause(one))
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}
