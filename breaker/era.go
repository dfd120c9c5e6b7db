package breaker

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// era is the time a Breaker spends in one state. An admitted call belongs to the era that admitted it; when that is
// over, its outcome counts for nothing. So an era is the generation stamp as well.
type era struct {
	state State

	// Closed: gobreaker counts and decides. It is told of a call when the call has ended, not when it begins: its buckets
	// would otherwise lose every outcome that takes longer than the window, and those are the ones that matter.
	calls    *gobreaker.CircuitBreaker[struct{}]
	slow     *gobreaker.CircuitBreaker[struct{}] // what fails in it is slow; nil if no call is
	failures atomic.Int64                        // in a row; gobreaker's own fade with its buckets
	tripped  atomic.Bool                         // gobreaker has decided

	until time.Time // Open

	// HalfOpen, guarded by Breaker.mu.
	probes    []time.Time   // when each under way was admitted; zero where there is none
	busy      int           // of probes
	succeeded int           // probes
	lease     time.Duration // of a probe
	nextOpen  time.Duration // drawn beforehand, so that the state is a matter of the clock alone
}

func newClosed(c *Config) *era {
	e := &era{}
	e.calls = e.counter(c, c.FailureRatio)
	if c.SlowAfter > 0 {
		e.slow = e.counter(c, c.SlowRatio)
	}
	return e
}

// counter makes an instance for this era only: gobreaker's open time is fixed, ours is not, so it never gets there.
func (e *era) counter(c *Config, ratio float64) *gobreaker.CircuitBreaker[struct{}] {
	least := int64(c.MinCalls)
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Interval:     c.Window,
		BucketPeriod: max(c.Window/10, 1),
		ReadyToTrip: func(n gobreaker.Counts) bool {
			all := int64(n.TotalFailures) + int64(n.TotalSuccesses)
			return all >= least && float64(n.TotalFailures)/float64(all) >= ratio
		},
		// Called under gobreaker's lock.
		OnStateChange: func(string, gobreaker.State, gobreaker.State) { e.tripped.Store(true) },
	})
}

var errCounted = errors.New("breaker: a failure")

func succeed() (struct{}, error) { return struct{}{}, nil }
func fail() (struct{}, error)    { return struct{}{}, errCounted }

// count adds the outcome of a call and reports whether the breaker should open.
func (e *era) count(c *Config, o Outcome, slow bool) bool {
	switch o {
	case Success:
		if e.failures.Load() != 0 {
			e.failures.Store(0)
		}
		_, _ = e.calls.Execute(succeed)
	case Failure:
		_, _ = e.calls.Execute(fail)
		if e.failures.Add(1) >= int64(c.Consecutive) {
			return true
		}
	}
	if e.slow != nil {
		if slow {
			_, _ = e.slow.Execute(fail)
		} else if o != Ignored {
			_, _ = e.slow.Execute(succeed)
		}
	}
	return e.tripped.Load()
}

// room reports whether another probe may be admitted: no more than could be needed to close.
func (e *era) room() bool { return e.busy+e.succeeded < len(e.probes) }

func (e *era) addProbe(now time.Time) int {
	for i, at := range e.probes {
		if at.IsZero() {
			e.probes[i] = now
			e.busy++
			return i
		}
	}
	panic("breaker: no room for a probe")
}

func (e *era) removeProbe(i int) {
	e.probes[i] = time.Time{}
	e.busy--
}

// leaseEnd is when the first of the probes under way will count as failed.
func (e *era) leaseEnd() (time.Time, bool) {
	var first time.Time
	for _, at := range e.probes {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first.Add(e.lease), !first.IsZero()
}

// retryAfter is how long a call would be refused.
func (e *era) retryAfter(c *Config, now time.Time) time.Duration {
	switch {
	case e.state == Open:
		return max(e.until.Sub(now), 0)
	case e.state == HalfOpen && !e.room():
		end, _ := e.leaseEnd()
		return max(min(c.OpenFor/10, end.Sub(now)), 1)
	default:
		return 0
	}
}

// look computes state and time to wait at this moment, and changes nothing: who asks for a state should not find that
// callbacks have been called.
func (b *Breaker) look() (State, time.Duration) {
	e := b.era.Load()
	if e.state == Closed {
		return Closed, 0
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	e = b.era.Load()
	until := e.until
	if e.state == HalfOpen {
		end, ok := e.leaseEnd()
		if !ok || now.Before(end) {
			return HalfOpen, e.retryAfter(&b.c, now)
		}
		until = end.Add(e.nextOpen)
	}
	switch {
	case e.state == Closed:
		return Closed, 0
	case now.Before(until):
		return Open, until.Sub(now)
	default:
		return HalfOpen, 0
	}
}

// settle makes the changes that time has brought since somebody last called.
func (b *Breaker) settle(ctx context.Context, now time.Time) {
	if e := b.era.Load(); e.state == HalfOpen {
		if end, ok := e.leaseEnd(); ok && !now.Before(end) {
			b.open(ctx, end, e.nextOpen)
		}
	}
	if e := b.era.Load(); e.state == Open && !now.Before(e.until) {
		b.halfOpened++
		b.become(ctx, &era{
			state: HalfOpen, probes: make([]time.Time, b.c.Probes), lease: b.c.ProbeLease, nextOpen: b.openFor(),
		}, 0)
	}
}

func (b *Breaker) open(ctx context.Context, at time.Time, d time.Duration) {
	b.become(ctx, &era{state: Open, until: at.Add(d)}, d)
}

func (b *Breaker) close(ctx context.Context) {
	b.halfOpened = 0
	b.become(ctx, newClosed(&b.c), 0)
}

// become begins the next era and notes the change for deliver.
func (b *Breaker) become(ctx context.Context, next *era, openFor time.Duration) {
	from := b.era.Load().state
	b.era.Store(next)
	if from != next.state && b.c.OnStateChange != nil {
		b.queue = append(b.queue, event{ctx, StateChange{Name: b.name, From: from, To: next.state, OpenFor: openFor}})
	}
}

// openFor draws how long to stay open: OpenFor, doubled for each time half-open since it was closed.
func (b *Breaker) openFor() time.Duration {
	d := b.c.OpenFor
	for range b.halfOpened {
		if d > b.c.MaxOpenFor/2 {
			d = b.c.MaxOpenFor
			break
		}
		d *= 2
	}
	spread := d / 5
	drawn := d - spread
	return drawn + min(time.Duration(rand.Int64N(2*int64(spread)+1)), math.MaxInt64-drawn)
}
