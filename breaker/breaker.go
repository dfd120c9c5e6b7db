package breaker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Outcome is what a call came to.
type Outcome int

// The outcomes.
const (
	Success Outcome = iota
	Failure
	Ignored // says nothing about the other side: a cancelled caller, a refusal of our own
)

// State is the state of a Breaker.
type State int

// The states.
const (
	Closed State = iota
	Open
	HalfOpen
)

func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	default:
		return fmt.Sprintf("State(%d)", int(s))
	}
}

// A Breaker admits calls or refuses them at once. Any number of goroutines may use it at once. A nil *Breaker admits
// everything.
type Breaker struct {
	name string
	c    Config // filled

	era atomic.Pointer[era] // changed under mu only

	mu         sync.Mutex
	halfOpened int // times since it was closed
	queue      []event
	delivering bool
}

// New returns a closed Breaker. The error joins every fault of the Config.
func New(name string, c Config) (*Breaker, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return newBreaker(name, c.filled()), nil
}

func newBreaker(name string, c Config) *Breaker {
	b := &Breaker{name: name, c: c}
	b.era.Store(newClosed(&b.c))
	return b
}

// Do calls op if the breaker admits it, and judges the result. A refusal is an *OpenError and op is not called. An op
// that panics or ends its goroutine is Ignored: the fault is of this process.
func (b *Breaker) Do(ctx context.Context, op func(context.Context) error) error {
	if b == nil {
		return op(ctx)
	}
	var p Permit
	if err := b.admit(ctx, &p); err != nil {
		return err
	}
	outcome := Ignored
	defer func() { b.finish(ctx, &p, outcome) }()
	if b.c.Classify != nil {
		err := op(ctx)
		outcome = b.c.Classify(ctx, err)
		return err
	}
	var started time.Time
	if _, bounded := ctx.Deadline(); bounded { // else nobody will ask
		started = time.Now()
	}
	err := op(ctx)
	outcome = classify(ctx, err, started)
	return err
}

// Allow asks for one call whose outcome is told later, through the permit. The error is an *OpenError. A permit whose
// Done is never called does no harm: it counts for nothing, or as a failed probe when its lease is over.
func (b *Breaker) Allow() (*Permit, error) {
	// Small enough to be inlined, so that the permit need not be on the heap.
	p := new(Permit)
	if err := b.allow(p); err != nil {
		return nil, err
	}
	return p, nil
}

//go:noinline
func (b *Breaker) allow(p *Permit) error { return b.admit(context.Background(), p) }

// A Permit is one admitted call. The zero Permit and a nil one do nothing. Do not copy it.
type Permit struct {
	b     *Breaker
	era   *era
	probe int       // its place among the probes, if half-open
	start time.Time // set if slow calls matter
	done  atomic.Bool
}

// Done tells the outcome. Only the first call counts; one that comes after the state has changed counts for nothing.
func (p *Permit) Done(o Outcome) {
	if p == nil || p.b == nil || p.done.Swap(true) {
		return
	}
	p.b.finish(context.Background(), p, o)
}

// admit fills p, or says why not.
func (b *Breaker) admit(ctx context.Context, p *Permit) error {
	if b == nil {
		return nil
	}
	e := b.era.Load()
	if e.state != Closed {
		return b.admitProbe(ctx, p)
	}
	p.b, p.era = b, e
	if b.c.SlowAfter > 0 {
		p.start = time.Now()
	}
	return nil
}

// admitProbe is admit where the breaker has been opened.
func (b *Breaker) admitProbe(ctx context.Context, p *Permit) error {
	now := time.Now()
	b.mu.Lock()
	b.settle(ctx, now)
	e := b.era.Load()
	var refusal error
	switch {
	case e.state == Closed: // since the caller looked
		p.b, p.era, p.start = b, e, now
	case e.state == HalfOpen && e.room():
		p.b, p.era, p.start, p.probe = b, e, now, e.addProbe(now)
	default:
		refusal = &OpenError{Name: b.name, State: e.state, RetryAfter: e.retryAfter(&b.c, now)}
	}
	b.mu.Unlock()
	b.deliver()
	return refusal
}

// finish counts the outcome of an admitted call in the era that admitted it. If that is over, it counts for nothing.
func (b *Breaker) finish(ctx context.Context, p *Permit, o Outcome) {
	e := p.era
	slow := b.c.SlowAfter > 0 && time.Since(p.start) > b.c.SlowAfter
	if e.state == Closed {
		if e.count(&b.c, o, slow) {
			b.trip(ctx, e)
		}
		return
	}
	b.finishProbe(ctx, p, o, slow)
}

// trip opens the breaker at the end of the closed era e.
func (b *Breaker) trip(ctx context.Context, e *era) {
	b.mu.Lock()
	if b.era.Load() == e {
		b.open(ctx, time.Now(), b.openFor())
	}
	b.mu.Unlock()
	b.deliver()
}

func (b *Breaker) finishProbe(ctx context.Context, p *Permit, o Outcome, slow bool) {
	now := time.Now()
	b.mu.Lock()
	b.settle(ctx, now)
	if e := b.era.Load(); e == p.era {
		e.removeProbe(p.probe)
		switch {
		case o == Failure || slow:
			b.open(ctx, now, e.nextOpen)
		case o == Success:
			e.succeeded++
			if e.succeeded >= b.c.Probes {
				b.close(ctx)
			}
		}
	}
	b.mu.Unlock()
	b.deliver()
}

// State computes the state with the clock: an open breaker whose time is over is half-open without anybody calling.
func (b *Breaker) State() State {
	if b == nil {
		return Closed
	}
	s, _ := b.look()
	return s
}

// RetryAfter is how long the breaker will refuse calls; zero when it would admit one now. Half-open with all probes
// under way nobody knows: it is a tenth of OpenFor then, or what remains of the oldest lease if that is less.
func (b *Breaker) RetryAfter() time.Duration {
	if b == nil {
		return 0
	}
	_, d := b.look()
	return d
}

// Trip opens the breaker for d, whatever its state; for as long as it would open by itself if d is zero or less.
func (b *Breaker) Trip(d time.Duration) {
	if b == nil {
		return
	}
	ctx := context.Background()
	now := time.Now()
	b.mu.Lock()
	b.settle(ctx, now)
	if d <= 0 {
		d = b.openFor()
	}
	b.open(ctx, now, d)
	b.mu.Unlock()
	b.deliver()
}

// Reset closes the breaker and forgets its history.
func (b *Breaker) Reset() {
	if b == nil {
		return
	}
	ctx := context.Background()
	b.mu.Lock()
	b.settle(ctx, time.Now())
	b.close(ctx)
	b.mu.Unlock()
	b.deliver()
}

// Name returns the name given to New.
func (b *Breaker) Name() string {
	if b == nil {
		return ""
	}
	return b.name
}
