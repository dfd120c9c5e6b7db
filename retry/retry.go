// Package retry runs an operation again when that can help and is safe.
package retry

import (
	"context"
	"time"
)

// A Policy says how often and how patiently to try. It is plain data: copy it, compare it by eye, load it from a file.
// The zero Policy is right for a call: 3 attempts, full jitter from 50 ms, capped at 2 s, within a budget.
// A Policy may be used by any number of goroutines at once.
type Policy struct {
	// MaxAttempts counts every attempt, the first included. Zero: the default of the place (a call 3, a consumer 5).
	MaxAttempts int
	// BaseDelay is the ceiling of the first wait; each further ceiling is twice the one before. The wait is drawn
	// uniformly between zero and the ceiling. Zero: the default of the place (a call 50 ms, a consumer 1 s).
	BaseDelay time.Duration
	// MaxDelay caps the ceiling, before the draw. Zero: the default of the place (a call 2 s, a consumer 5 min).
	MaxDelay time.Duration
	// MaxHint is the longest wish of a server ("come back in ...") that is obeyed where no deadline decides; a longer
	// one ends the call at once. Zero: 30 s.
	MaxHint time.Duration
	// Backoff makes the generator of waits for one call, in place of BaseDelay and MaxDelay. It is called after the
	// first failure only. Any version of cenkalti/backoff fits. Zero: full jitter from BaseDelay to MaxDelay.
	Backoff func() Intervals
	// Budget bounds retries over many calls. Zero: the default of the place (one per client and host); in Do: none.
	Budget *Budget
	// Retryable says whether an error is worth another attempt. Permanent and After are asked first. Zero: every error
	// but the end of the caller's own context.
	Retryable func(error) bool
	// OnRetry is called before each wait, with the context of the call. Zero: nothing is called.
	OnRetry func(ctx context.Context, e Event)
}

// Intervals generates waits. It has the shape that cenkalti/backoff has had from v4 on. A negative interval ends the
// call, as backoff.Stop does.
type Intervals interface {
	NextBackOff() time.Duration
	Reset()
}

// An Event tells of one retry about to happen.
type Event struct {
	Attempt int           // the attempt that failed, from 1
	Delay   time.Duration // how long the wait will be
	Hinted  bool          // the server asked for it
	Err     error         // why the attempt failed
}

// Never is the policy of one attempt.
func Never() Policy { return Policy{MaxAttempts: 1} }

// Do calls op until it succeeds, cannot succeed, or may not be called again.
func (p Policy) Do(ctx context.Context, op func(context.Context) error) error { panic("unwritten") }

// DoValue is Do for an operation that returns a value.
func DoValue[T any](ctx context.Context, p Policy, op func(context.Context) (T, error)) (T, error) {
	panic("unwritten")
}

// Or returns p with every zero field taken from d. Clients use it to fill a policy with the defaults of their place.
func (p Policy) Or(d Policy) Policy { panic("unwritten") }

// Validate reports every fault of the policy at once. The constructors of this module call it.
func (p Policy) Validate() error { panic("unwritten") }

// Permanent marks err as not worth another attempt.
func Permanent(err error) error { panic("unwritten") }

// After marks err with the server's wish: not before d.
func After(err error, d time.Duration) error { panic("unwritten") }

// Attempt returns the number of the current attempt, from 1, inside an operation; 0 outside of any.
func Attempt(ctx context.Context) int { panic("unwritten") }

// WithPolicy overrides, for the first call made with ctx, the fields of the policy that are not zero.
func WithPolicy(ctx context.Context, p Policy) context.Context { panic("unwritten") }

// Idempotent marks the first call made with ctx as one that may happen twice.
func Idempotent(ctx context.Context) context.Context { panic("unwritten") }
