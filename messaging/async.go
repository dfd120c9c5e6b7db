package messaging

import (
	"context"
	"errors"
	"strings"
	"time"
)

// maxAsync bounds how many messages of Go are sent in one batch.
const maxAsync = 512

// An asyncMessage is one message of Go.
type asyncMessage struct {
	number int64 // in the order of Go calls, from 1
	m      *Message
	done   func(error)
	err    error
}

// An asyncBatch is what one round of the pump sends.
type asyncBatch struct {
	first    int64 // number of its first message
	answered bool
}

type flushWaiter struct {
	until int64
	done  chan struct{}
}

// Go publishes m without waiting for the confirmation: it waits only for room in the window, then returns nil and calls
// done once from another goroutine. An error of Go itself, a message that cannot be sent or the end of ctx, means that
// done is not called. Messages of one Key are stored in the order of their Go calls; when one fails, those of its key
// that wait behind it fail too. Flush waits for all. done may be nil; it should be short, and may call Go but not Flush,
// which waits for it.
//
// The goroutine that sends ends when nothing is left to send.
func (p *Publisher) Go(ctx context.Context, m *Message, done func(error)) error {
	if m == nil {
		return p.Publish(ctx, m)
	}
	if p.features.Confirm == ConfirmTx { // nothing of a transaction may run beside it, or after it
		err := p.Publish(ctx, m)
		if done != nil {
			contain(p.config.Log, func() { done(err) })
		}
		return nil
	}
	if ctx.Err() != nil {
		return &PublishError{Failed: []Failure{{Err: context.Cause(ctx)}}}
	}
	now := time.Now()
	if err := p.check(m, now); err != nil {
		return &PublishError{Failed: []Failure{{Err: err}}}
	}
	if m.ID == "" {
		var id strings.Builder
		id.Grow(uuidLen)
		m.ID = p.ids.next(now, &id)
	}
	p.fill(m, now)
	select {
	case p.window <- struct{}{}:
	default:
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return &PublishError{Failed: []Failure{{Err: context.Cause(ctx)}}}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entered++
	p.queue = append(p.queue, asyncMessage{number: p.entered, m: m, done: done})
	if !p.pumping {
		p.pumping = true
		go p.pump(context.Background()) //nolint:contextcheck // it sends the messages of many callers
	}
	return nil
}

// pump sends one batch, lets a successor send the next, and tells the answers: a done that waits holds up no message.
func (p *Publisher) pump(ctx context.Context) {
	p.mu.Lock()
	n := min(len(p.queue), maxAsync)
	taken := append([]asyncMessage(nil), p.queue[:n]...)
	p.queue = p.queue[:copy(p.queue, p.queue[n:])]
	b := &asyncBatch{first: taken[0].number}
	p.batches = append(p.batches, b)
	p.mu.Unlock()

	taken = p.sendAsync(ctx, taken)

	for range taken {
		<-p.window
	}
	p.mu.Lock()
	if len(p.queue) > 0 {
		go p.pump(ctx)
	} else {
		p.pumping = false
		p.queue = nil
	}
	p.mu.Unlock()

	p.tellDone(taken, b)
}

// tellDone calls what Go was given. One that ends this goroutine, as a failing assertion in a test does, leaves the
// others to the deferred calls.
func (p *Publisher) tellDone(taken []asyncMessage, b *asyncBatch) {
	next := 0
	defer func() {
		if next < len(taken) {
			p.tellDone(taken[next:], b)
			return
		}
		p.answered(b)
	}()
	for next < len(taken) {
		one := taken[next]
		next++
		if one.done != nil {
			contain(p.config.Log, func() { one.done(one.err) })
		}
	}
}

// sendAsync publishes the messages, and returns them with those of the queue whose key has failed meanwhile.
func (p *Publisher) sendAsync(ctx context.Context, taken []asyncMessage) []asyncMessage {
	m := make([]*Message, len(taken))
	for i := range taken {
		m[i] = taken[i].m
	}
	err := p.Publish(ctx, m...)
	if err == nil {
		return taken
	}
	pe, ok := errors.AsType[*PublishError](err)
	if !ok {
		for i := range taken {
			taken[i].err = err
		}
		return taken
	}
	failed := make(map[laneKey]struct{})
	for _, f := range pe.Failed {
		taken[f.Index].err = &PublishError{Failed: []Failure{{Unknown: f.Unknown, Err: f.Err}}}
		if m := taken[f.Index].m; m.Key != "" {
			failed[laneKey{m.Topic, m.Key}] = struct{}{}
		}
	}
	if len(failed) == 0 {
		return taken
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.queue[:0]
	for _, q := range p.queue {
		if _, bad := failed[laneKey{q.m.Topic, q.m.Key}]; bad && q.m.Key != "" {
			q.err = &PublishError{Failed: []Failure{{Err: errKeyBlocked}}}
			taken = append(taken, q)
			continue
		}
		kept = append(kept, q)
	}
	clear(p.queue[len(kept):])
	p.queue = kept
	return taken
}

// answered ends the batches that Flush need not wait for any more.
func (p *Publisher) answered(b *asyncBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.answered = true
	for len(p.batches) > 0 && p.batches[0].answered {
		p.batches = p.batches[1:]
	}
	p.wake()
}

// wake ends the Flush calls whose messages are all answered.
func (p *Publisher) wake() {
	kept := p.waiters[:0]
	for _, w := range p.waiters {
		if p.reached() >= w.until {
			close(w.done)
			continue
		}
		kept = append(kept, w)
	}
	clear(p.waiters[len(kept):])
	p.waiters = kept
}

// reached is the number of the last message up to which all are answered.
func (p *Publisher) reached() int64 {
	switch {
	case len(p.batches) > 0: // those that failed with a batch ahead of their turn have higher numbers
		return p.batches[0].first - 1
	case len(p.queue) > 0:
		return p.queue[0].number - 1
	default:
		return p.entered
	}
}

// Flush waits until every message of Go so far has been answered, and its done has returned. It returns the cause of
// ctx's end if that comes first.
func (p *Publisher) Flush(ctx context.Context) error {
	p.mu.Lock()
	if p.reached() >= p.entered {
		p.mu.Unlock()
		return nil
	}
	w := &flushWaiter{until: p.entered, done: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
