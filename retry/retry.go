package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// A Policy says how often and how patiently to try. It is plain data: copy it, compare it by eye, load it from a file.
// The zero Policy is right for a call: 3 attempts, full jitter from 50 ms, capped at 2 s, within a budget where the
// place has one. A Policy may be used by any number of goroutines at once.
type Policy struct {
	// MaxAttempts counts every attempt, the first included. Zero: the default of the place (a call 3, a consumer 10).
	MaxAttempts int
	// BaseDelay is the ceiling of the first wait; each further ceiling is twice the one before. The wait is drawn
	// uniformly between zero and the ceiling. Zero: the default of the place (a call 50 ms, a consumer 1 s).
	BaseDelay time.Duration
	// MaxDelay caps the ceiling, before the draw. Zero: the default of the place (a call 2 s, a consumer 5 min), or
	// BaseDelay if that is longer.
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
	// OnRetry is called before each wait, with the context of the call. A panic in it is swallowed. Zero: nothing is
	// called.
	OnRetry func(ctx context.Context, e Event)
	// OnGiveUp is called once when a call ends without success, whether that comes to an error or to a last response;
	// not for a first attempt that failed with an error not worth another one (Stopped). A panic in it is swallowed.
	// Zero: nothing is called.
	OnGiveUp func(ctx context.Context, e *Error)
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

// Do calls op until it succeeds, cannot succeed, or may not be called again. The error is an *Error. Fields of p that
// are zero take the defaults of a call; fields given by WithPolicy come before both. An op that panics ends the call.
func (p Policy) Do(ctx context.Context, op func(context.Context) error) error {
	if err := p.Validate(); err != nil {
		return &Error{Err: err}
	}
	if ctx.Err() != nil {
		return &Error{Reason: Cancelled, Cause: endOf(ctx, time.Now())}
	}
	t := p.Start(ctx)
	for {
		err := op(t.Context()) //nolint:contextcheck // Start made it of ctx
		if err == nil || !t.Again(Judge(err)) {
			return t.Wrap(err)
		}
		if err := t.Wait(); err != nil {
			return t.Wrap(err)
		}
	}
}

// DoValue is Do for an operation that returns a value. With an error comes the value of the last attempt, whatever it
// is worth.
func DoValue[T any](ctx context.Context, p Policy, op func(context.Context) (T, error)) (T, error) {
	var v T
	err := p.Do(ctx, func(ctx context.Context) (err error) {
		v, err = op(ctx)
		return err
	})
	return v, err
}

// What an error may answer, wherever it is in the chain. Text is never looked at.
type (
	ender interface {
		error
		Permanent() bool
	}
	hinter interface {
		error
		Hint() (time.Duration, bool)
	}
	refuser interface {
		error
		Refused() bool
	}
)

// Judge asks err what may follow an attempt that failed with it, through the methods named in the package comment. Of
// several errors in a chain that have the same method, the outermost answers. Transports add what they know themselves.
func Judge(err error) Outcome {
	o := Outcome{Err: err}
	if p, ok := errors.AsType[ender](err); ok {
		o.Stop = p.Permanent()
	}
	if h, ok := errors.AsType[hinter](err); ok {
		o.Hint, o.Hinted = h.Hint()
	}
	if r, ok := errors.AsType[refuser](err); ok && r.Refused() {
		o.Refused, o.Free = true, true
	}
	return o
}

// Or returns p with every zero field taken from d. Clients use it to fill a policy with the defaults of their place.
// A default does not contradict what was set: MaxDelay is raised to the BaseDelay of p, BaseDelay lowered to the
// MaxDelay of p.
func (p Policy) Or(d Policy) Policy {
	base, most := p.BaseDelay, p.MaxDelay
	if p.BaseDelay == 0 {
		p.BaseDelay = d.BaseDelay
		if most > 0 {
			p.BaseDelay = min(p.BaseDelay, most)
		}
	}
	if p.MaxDelay == 0 && d.MaxDelay != 0 {
		p.MaxDelay = max(d.MaxDelay, base)
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = d.MaxAttempts
	}
	if p.MaxHint == 0 {
		p.MaxHint = d.MaxHint
	}
	if p.Backoff == nil {
		p.Backoff = d.Backoff
	}
	if p.Budget == nil {
		p.Budget = d.Budget
	}
	if p.Retryable == nil {
		p.Retryable = d.Retryable
	}
	if p.OnRetry == nil {
		p.OnRetry = d.OnRetry
	}
	if p.OnGiveUp == nil {
		p.OnGiveUp = d.OnGiveUp
	}
	return p
}

// Validate reports every fault of the policy at once. The constructors of this module call it.
func (p Policy) Validate() error {
	if p.MaxAttempts >= 0 && p.BaseDelay >= 0 && p.MaxDelay >= 0 && p.MaxHint >= 0 &&
		(p.MaxDelay == 0 || p.BaseDelay <= p.MaxDelay) {
		return nil // every call passes here
	}
	var faults []error
	if p.MaxAttempts < 0 {
		faults = append(faults, fmt.Errorf("retry: MaxAttempts %d is negative", p.MaxAttempts))
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"BaseDelay", p.BaseDelay}, {"MaxDelay", p.MaxDelay}, {"MaxHint", p.MaxHint}} {
		if f.d < 0 {
			faults = append(faults, fmt.Errorf("retry: %s %v is negative", f.name, f.d))
		}
	}
	if p.MaxDelay > 0 && p.BaseDelay > p.MaxDelay {
		faults = append(faults, fmt.Errorf("retry: BaseDelay %v is over MaxDelay %v", p.BaseDelay, p.MaxDelay))
	}
	return errors.Join(faults...)
}

// defaults are those of a call.
func defaults() Policy {
	return Policy{MaxAttempts: 3, BaseDelay: 50 * time.Millisecond, MaxDelay: 2 * time.Second, MaxHint: 30 * time.Second}
}

// Attempt returns the number of the current attempt of the innermost call that ctx belongs to, from 1. The first
// attempt needs no mark, so it is 1 outside of any call as well.
func Attempt(ctx context.Context) int { return max(call.Attempt(ctx), 1) }

// WithPolicy overrides, for each call made with the context it returns, the fields of the policy that are not zero. The
// calls made within such a call, and the handlers that answer it, do not see it. Of two overrides the later one comes
// first. There is nobody to return a fault of p to (see Validate): it makes the call one attempt.
func WithPolicy(ctx context.Context, p Policy) context.Context {
	m := call.PeekMarks(ctx)
	if earlier, ok := m.Policy.(*Policy); ok {
		p = p.Or(*earlier)
	}
	m.Policy = &p
	return call.WithMarks(ctx, m)
}

// Idempotent marks each call made with the context it returns as one that may happen twice. The calls made within such a
// call, and the handlers that answer it, do not see the mark.
func Idempotent(ctx context.Context) context.Context {
	m := call.PeekMarks(ctx)
	m.Idempotent = true
	return call.WithMarks(ctx, m)
}
