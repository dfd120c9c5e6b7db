// Package breaker stops calling what does not answer.
package breaker

import (
	"context"
	"errors"
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

func (s State) String() string { panic("unwritten") }

// Config configures a Breaker. The zero Config is right for calls to a service.
type Config struct {
	Window       time.Duration // over which FailureRatio is taken. Zero: 10 s
	MinCalls     int           // fewer in the window never open by ratio. Zero: 20
	FailureRatio float64       // opens at this share of failures. Zero: 0.5
	Consecutive  int           // opens at this many failures in a row, which only a success resets. Zero: 10
	SlowAfter    time.Duration // a call that takes longer is slow. Zero: no call is
	SlowRatio    float64       // opens at this share of slow calls. Zero: 0.8
	OpenFor      time.Duration // how long it stays open the first time, +/- 20 %. Zero: 5 s
	MaxOpenFor   time.Duration // it doubles at each reopening up to this. Zero: 10 s
	Probes       int           // concurrent probes when half-open, and successes needed to close. Zero: 3
	ProbeLease   time.Duration // a probe without outcome after this counts as failed. Zero: 10 s
	// Classify judges the error of Do. Zero: nil is success, the end of the caller's own context is ignored, any other
	// error is failure.
	Classify func(ctx context.Context, err error) Outcome
	// OnStateChange is called after each change, in order, without a lock held; it may call the Breaker. Zero: nothing.
	OnStateChange func(ctx context.Context, e StateChange)
}

// A StateChange tells of one transition.
type StateChange struct {
	Name     string
	From, To State
	OpenFor  time.Duration // when To is Open
}

// A Breaker admits calls or refuses them at once. Any number of goroutines may use it at once. A nil *Breaker admits everything.
type Breaker struct{ name string }

// New returns a closed Breaker. The error joins every fault of the Config.
func New(name string, c Config) (*Breaker, error) { panic("unwritten") }

// Do calls op if the breaker admits it, and judges the result. A refusal is an *OpenError and op is not called.
func (b *Breaker) Do(ctx context.Context, op func(context.Context) error) error { panic("unwritten") }

// Allow asks for one call whose outcome is told later, through the permit. The error is an *OpenError.
func (b *Breaker) Allow() (*Permit, error) { panic("unwritten") }

// State computes the state with the clock: an open breaker whose time is over is half-open without anybody calling.
func (b *Breaker) State() State { panic("unwritten") }

// RetryAfter is how long the breaker stays open; zero when it would admit a call now.
func (b *Breaker) RetryAfter() time.Duration { panic("unwritten") }

// Trip opens the breaker for d, whatever its state.
func (b *Breaker) Trip(d time.Duration) { panic("unwritten") }

// Reset closes the breaker and forgets its history.
func (b *Breaker) Reset() { panic("unwritten") }

// Name returns the name given to New.
func (b *Breaker) Name() string { panic("unwritten") }

// A Permit is one admitted call. The zero Permit and a nil one do nothing.
type Permit struct{ b *Breaker }

// Done tells the outcome. Only the first call counts; one that comes after the state has changed counts for nothing.
func (p *Permit) Done(o Outcome) { panic("unwritten") }

// ErrOpen is what errors.Is finds in every refusal of a breaker.
var ErrOpen = errors.New("breaker: open")

// OpenError is the refusal of a breaker that is open, or half-open with all probes under way.
type OpenError struct {
	Name       string
	State      State
	RetryAfter time.Duration // when to come back
}

func (e *OpenError) Error() string        { panic("unwritten") }
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Hint answers package retry: come back after RetryAfter.
func (e *OpenError) Hint() (time.Duration, bool) { return e.RetryAfter, true }

// Refused answers package retry: the call never reached the other side.
func (e *OpenError) Refused() bool { return true }
