package idempotency

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A keeper extends the lease of one claim every third of it while the work goes on. It is timers, not a goroutine:
// work that ends within a third of its lease never starts one. When the lease cannot be extended, the work is told a
// tenth of the lease before anybody else can take over.
type keeper struct {
	job   *job
	lose  context.CancelCauseFunc // ends the work
	ctx   context.Context         // the caller's, whose end does not end the heartbeats: the work may go on
	beats sync.WaitGroup

	mu     sync.Mutex         // guards what follows
	stop   context.CancelFunc // of the heartbeat under way
	ticket Ticket
	until  time.Time // the end of the lease, counted from before the call that started it
	next   *time.Timer
	watch  *time.Timer // runs while a heartbeat is due; its end is the end of the work
	last   error       // of the last heartbeat
	ended  bool
}

func (j *job) keep(ctx context.Context, t Ticket, began time.Time, lose context.CancelCauseFunc) *keeper {
	k := &keeper{job: j, lose: lose, ctx: ctx, ticket: t, until: began.Add(j.options.Lease)}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = time.AfterFunc(time.Until(k.until)-2*j.options.Lease/3, k.beat)
	return k
}

// beat is one heartbeat. After one that failed the next comes soon, for as long as the lease is there.
func (k *keeper) beat() {
	lease := k.job.options.Lease
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return
	}
	k.beats.Add(1)
	defer k.beats.Done()
	t, began := k.ticket, time.Now()
	limit := k.until.Add(-lease / 10)
	if k.watch == nil {
		k.watch = time.AfterFunc(time.Until(limit), k.expire)
	}
	// An answer that was lost must not use up the time in which others could come.
	try := began.Add(lease / 6)
	if try.After(limit) {
		try = limit
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(k.ctx), try)
	k.stop = cancel
	k.mu.Unlock()

	next, err := k.extend(ctx, t, lease)
	cancel()

	k.mu.Lock()
	k.last = err
	if err == nil {
		k.ticket, k.until = next, began.Add(lease)
		k.watch.Stop()
		k.watch = nil
	}
	ended := k.ended
	k.mu.Unlock()

	pause := time.Until(began.Add(lease)) - 2*lease/3
	if err != nil && !ended {
		k.job.tell(k.ctx, Event{Scope: k.job.key.Scope, Step: StepExtend, Attempt: t.Attempt, Err: err})
		if lost(err) {
			k.expire()
		}
		pause = lease / 12
	}
	// The next one is scheduled last, so that hooks are called one after another.
	k.mu.Lock()
	if !k.ended {
		k.next = time.AfterFunc(max(pause, 0), k.beat)
	}
	k.mu.Unlock()
}

// extend contains a panic of the store: in the goroutine of a timer nobody could.
func (k *keeper) extend(ctx context.Context, t Ticket, lease time.Duration) (_ Ticket, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("idempotency: the store panicked: %v", v)
		}
	}()
	return k.job.store.Extend(ctx, t, lease)
}

// expire ends the work: the lease is over, or about to be.
func (k *keeper) expire() {
	k.mu.Lock()
	last := k.last
	extended := !lost(last) && time.Now().Before(k.until.Add(-k.job.options.Lease/10)) // at the last moment
	stay := k.ended || extended
	if !stay {
		k.halt()
	}
	k.mu.Unlock()
	switch {
	case stay:
	case last == nil || lost(last):
		k.lose(ErrLost)
	default:
		k.lose(fmt.Errorf("%w: lease not extended: %w", ErrLost, last))
	}
}

// end stops the heartbeats, waits for one that is under way, and returns the newest Ticket.
func (k *keeper) end() Ticket {
	k.mu.Lock()
	k.halt()
	if k.stop != nil {
		k.stop()
	}
	k.mu.Unlock()
	k.beats.Wait()
	return k.ticket
}

// halt is called with mu held.
func (k *keeper) halt() {
	k.ended = true
	k.next.Stop()
	if k.watch != nil {
		k.watch.Stop()
	}
}

// late reports whether the lease has passed by this process's own clock.
func (k *keeper) late() bool { return !time.Now().Before(k.until) }
