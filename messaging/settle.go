package messaging

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// toSettle hands a verdict to the settler.
func (r *run) toSettle(f *flight, s Settlement) {
	f.state = settling
	f.verdict = s
	f.verdict.Ref = f.ref
	r.settle = append(r.settle, f)
	r.verdicts.Signal()
}

// settleLoop tells the transport the verdicts, as many at once as have gathered, until the run is closed.
func (r *run) settleLoop() {
	var batch []*flight
	var verdicts []Settlement
	var c sharedContext
	defer close(r.allSaid)
	defer c.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.settle) == 0 && !r.closed {
			r.verdicts.Wait()
		}
		if len(r.settle) == 0 {
			return
		}
		batch, r.settle = r.settle, batch[:0]
		src, rest := batch[0].source, batch[:0:0]
		now := time.Now()
		kept := batch[:0]
		verdicts = verdicts[:0]
		for _, f := range batch {
			if f.source != src { // of another subscription: next turn
				rest = append(rest, f)
				continue
			}
			if f.lost || !f.until.IsZero() && !now.Before(f.until) {
				// A late verdict may hit the delivery of somebody else: it is never sent.
				r.stats.Late++
				r.late(f, f.verdict.Action)
				r.drop(f)
				continue
			}
			kept = append(kept, f)
			verdicts = append(verdicts, f.verdict)
		}
		clear(batch[len(kept):])
		batch = kept
		r.settle = append(r.settle, rest...)
		if len(batch) == 0 {
			continue
		}
		r.mu.Unlock()
		err := src.sub.Settle(c.get(r.base, now), verdicts)
		r.mu.Lock()
		r.settled(batch, verdicts, err)
		clear(batch)
	}
}

// A sharedContext bounds many calls, one after another, each with settleTimeout at least.
type sharedContext struct {
	ctx    context.Context
	cancel context.CancelFunc
	until  time.Time
}

func (c *sharedContext) get(base context.Context, now time.Time) context.Context {
	if c.ctx == nil || c.until.Sub(now) < settleTimeout {
		c.end()
		c.until = now.Add(2 * settleTimeout)
		c.ctx, c.cancel = context.WithDeadline(context.WithoutCancel(base), c.until)
	}
	return c.ctx
}

func (c *sharedContext) end() {
	if c.cancel != nil {
		c.cancel()
	}
}

// settled enters the transport's answers.
func (r *run) settled(batch []*flight, verdicts []Settlement, err error) {
	for i, f := range batch {
		answer := verdicts[i].Err
		if err != nil {
			answer = err
		}
		if answer != nil {
			if errors.Is(answer, ErrLeaseLost) {
				r.stats.Late++
			}
			r.tellSettle(f.message, verdicts[i].Action, answer)
		} else if verdicts[i].Action == Release {
			r.stats.Released++
		}
		r.drop(f)
	}
}

// late tells of a verdict that comes after the lease was lost.
func (r *run) late(f *flight, a Action) { r.tellSettle(f.message, a, ErrLeaseLost) }

// tellSettle calls OnSettle beside the lock that its caller holds.
func (r *run) tellSettle(m *Message, a Action, err error) {
	c := &r.c.config
	if c.OnSettle == nil && c.Log == nil {
		return
	}
	r.tell(func(ctx context.Context) {
		if c.Log != nil {
			c.Log.LogAttrs(ctx, slog.LevelWarn, "messaging: a verdict did not reach the transport",
				slog.String("topic", r.c.topic), slog.String("group", c.Group), slog.String("id", m.ID),
				slog.String("action", a.String()), slog.Any("error", err))
		}
		if c.OnSettle != nil {
			contain(c.Log, func() { c.OnSettle(ctx, SettleError{Message: m, Action: a, Err: err}) })
		}
	})
}
