package messaging

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// A keeper knows when the next thing that has a time is due. One timer serves all deliveries; it is set anew only when
// something is due earlier than what it waits for.
type keeper struct {
	at   time.Time // what the timer is set to; zero: nothing
	poke chan struct{}
	end  bool
}

// due asks to be woken at t, at the latest.
func (k *keeper) due(t time.Time) {
	if t.IsZero() || !k.at.IsZero() && !t.Before(k.at) {
		return
	}
	k.at = t
	k.wake()
}

func (k *keeper) wake() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// keep runs what is due until the run has ended.
func (r *run) keep() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var batch keptBatch
	for {
		r.mu.Lock()
		now := time.Now()
		r.keeper.at = r.inspect(now, &batch)
		next, end := r.keeper.at, r.keeper.end
		r.mu.Unlock()

		if len(batch.refs) > 0 {
			r.extend(&batch)
			continue
		}
		if end {
			return
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-r.keeper.poke:
		}
	}
}

// A keptBatch is the leases of one subscription to be extended.
type keptBatch struct {
	source *source
	refs   []Settlement
	of     []keptFlight
}

// A keptFlight is a flight as it was when its extension was asked for: it may be settled, and another one, meanwhile.
type keptFlight struct {
	f          *flight
	generation uint64
}

// inspect does what is due now, lists the leases to be extended, and returns when to look again.
func (r *run) inspect(now time.Time, b *keptBatch) (next time.Time) {
	b.source, b.refs, b.of = nil, b.refs[:0], b.of[:0]
	soon := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if r.brake.on {
		if now.Before(r.brake.next) {
			soon(r.brake.next)
		} else { // a probe is due
			r.work.Signal()
			r.room.Signal()
		}
	}
	for i := len(r.flights) - 1; i >= 0; i-- { // a dropped one is replaced by a later one, already seen
		f := r.flights[i]
		if f.state == settling || f.lost {
			continue
		}
		if !f.until.IsZero() && !now.Before(f.until) {
			r.lose(f)
			continue
		}
		if !f.timeOut.IsZero() && !now.Before(f.timeOut) {
			f.timeOut, f.timedOut = time.Time{}, true
			f.interrupt(errHandleTimeout)
			r.tellTimeout(f.message.ID)
		}
		if f.state == sleeping && !now.Before(f.wakeAt) {
			r.wake(f)
		}
		extend := f.extendAt
		if f.timedOut {
			extend = time.Time{} // its handler has had its time; the lease may pass
		}
		if !extend.IsZero() && !now.Before(extend) && (b.source == nil || b.source == f.source) {
			b.source = f.source
			b.refs = append(b.refs, Settlement{Ref: f.ref, Action: Extend})
			b.of = append(b.of, keptFlight{f, f.generation})
			continue
		}
		soon(f.until)
		soon(f.timeOut)
		soon(f.wakeAt)
		soon(extend)
	}
	return next
}

// lose gives a flight up whose lease has passed. A handler that has it is told, and keeps its slot until it returns.
func (r *run) lose(f *flight) {
	f.lost = true
	switch f.state {
	case running:
		f.interrupt(ErrLeaseLost)
	case sleeping:
		r.leaveLane(f)
		r.drop(f)
	}
}

func (r *run) tellTimeout(id string) {
	log := r.c.config.Log
	if log == nil {
		return
	}
	r.tell(func(ctx context.Context) {
		log.LogAttrs(ctx, slog.LevelError, "messaging: a handler has outlived HandleTimeout",
			slog.String("topic", r.c.topic), slog.String("group", r.c.config.Group), slog.String("id", id))
	})
}

// extend starts leases anew.
func (r *run) extend(b *keptBatch) {
	lease := r.c.config.Lease
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.base), max(min(lease/3, settleTimeout), time.Millisecond))
	err := b.source.sub.Settle(ctx, b.refs)
	cancel()

	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i, k := range b.of {
		f := k.f
		if f.generation != k.generation || f.state == settling || f.lost {
			continue
		}
		answer := b.refs[i].Err
		if err != nil {
			answer = err
		}
		switch {
		case answer == nil:
			f.until = b.refs[i].Until
			if f.until.IsZero() {
				f.until = now.Add(lease)
			}
			f.extendAt = now.Add(lease / 3)
		case errors.Is(answer, ErrLeaseLost):
			r.lose(f)
		default: // while the lease lasts, try again
			f.extendAt = now.Add(max(lease/9, time.Millisecond))
		}
	}
}
