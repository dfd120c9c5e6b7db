package messaging

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// A keeper knows when the next thing that has a time is due. One timer serves all deliveries; it is set anew only when
// something is due earlier than what it waits for. It waits for nobody: what asks the transport, or calls a hook, has a
// goroutine of its own, because a lease does not wait either.
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
	for {
		r.mu.Lock()
		next, extensions := r.inspect(time.Now())
		r.keeper.at = next
		end := r.keeper.end
		r.mu.Unlock()

		for _, e := range extensions {
			r.keeping.Go(func() { r.extend(e) })
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

// An extension is the leases of one subscription that are to be started anew, in one call.
type extension struct {
	source *source
	within time.Duration // of what remains of the shortest of them
	refs   []Settlement
	of     []keptFlight
}

// A keptFlight is a flight as it was when its extension was asked for: it may be settled, and another one, meanwhile.
type keptFlight struct {
	f          *flight
	generation uint64
}

// inspect does what is due now, and returns when to look again and which leases are to be extended.
func (r *run) inspect(now time.Time) (next time.Time, extensions []*extension) {
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
		soon(f.until)
		soon(f.timeOut)
		soon(f.wakeAt)
		if f.extendAt.IsZero() || f.extending || f.timedOut { // a handler that has had its time: the lease may pass
			continue
		}
		if now.Before(f.extendAt.Add(-f.until.Sub(f.extendAt) / alongside)) {
			soon(f.extendAt)
			continue
		}
		f.extending = true
		extensions = addExtension(extensions, f, now)
	}
	return next, extensions
}

// alongside: a lease is extended early by this part of what is left then, if another one is due: one call serves both.
const alongside = 16

func addExtension(all []*extension, f *flight, now time.Time) []*extension {
	i := slices.IndexFunc(all, func(e *extension) bool { return e.source == f.source })
	if i < 0 {
		i = len(all)
		all = append(all, &extension{source: f.source, within: settleTimeout})
		f.source.flights++ // it is not closed meanwhile
	}
	e := all[i]
	e.within = min(e.within, f.until.Sub(now)/2)
	e.refs = append(e.refs, Settlement{Ref: f.ref, Action: Extend})
	e.of = append(e.of, keptFlight{f, f.generation})
	return all
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
func (r *run) extend(e *extension) {
	ctx, cancel := context.WithTimeout(r.keepingCtx, max(e.within, time.Millisecond))
	err := e.source.sub.Settle(ctx, e.refs)
	cancel()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaveSource(e.source)
	now := time.Now()
	for i, k := range e.of {
		f := k.f
		if f.generation != k.generation || f.lost {
			continue
		}
		f.extending = false
		answer := e.refs[i].Err
		if err != nil {
			answer = err
		}
		switch {
		case answer == nil:
			f.until = e.refs[i].Until
			if f.until.IsZero() {
				f.until = now.Add(r.c.config.Lease)
			}
			r.extendLater(f, now)
		case errors.Is(answer, ErrLeaseLost):
			if f.state != settling {
				r.lose(f)
			}
		default: // while the lease lasts, try again
			f.extendAt = now.Add(max(f.until.Sub(now)/4, leastDelay))
			r.keeper.due(f.extendAt)
		}
	}
}

// extendLater sets when a lease is extended: with two thirds of it left, so that two failures can be mended. The lease
// is the one that was given, whatever was asked for.
func (r *run) extendLater(f *flight, now time.Time) {
	f.extendAt = now.Add(f.until.Sub(now) / 3)
	r.keeper.due(f.extendAt)
	r.keeper.due(f.until)
}
