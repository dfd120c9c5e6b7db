package call

import (
	"context"
	"math"
	"time"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = time.Duration(math.MaxInt64)

// The defaults of every transport. Three attempts of 3 s fit into 10 s.
const (
	DefaultTimeout        = 10 * time.Second
	DefaultAttemptTimeout = 3 * time.Second
)

// Bounded is a context with a sooner deadline, that of the whole call. It has no timer: each attempt is ended by a timer
// of its own, and no wait is begun that would outlive the deadline. So a call needs one timer at a time.
type Bounded struct {
	context.Context
	Until time.Time
}

// Deadline implements context.Context.
func (b *Bounded) Deadline() (time.Time, bool) { return b.Until, true }

// Limit is how long an attempt may take where rest remains of the call. While there may be more attempts after it, it
// gets at most half: so another one still fits, and a tier below can retry inside this one.
func Limit(attemptTimeout, rest time.Duration, more bool) time.Duration {
	if more {
		rest = max(rest/2, min(rest, time.Millisecond))
	}
	return min(attemptTimeout, rest)
}

// Telling is how long an attempt that was cut short must have run to say something about the server: a tenth of the
// attempt timeout. A caller in a hurry must not open the breaker for everybody; but down a chain of calls deadlines
// shrink with every tier, and a dead server behind the last of them has to be noticed too.
func Telling(attemptTimeout time.Duration) time.Duration { return Patience(attemptTimeout) / 10 }

// Patience is the attempt timeout, or what it would be where it is off.
func Patience(attemptTimeout time.Duration) time.Duration {
	if attemptTimeout == NoTimeout {
		return DefaultAttemptTimeout
	}
	return attemptTimeout
}

// ProbeLease is the lease of a breaker's probes that run under an attempt timeout: one that is allowed to run the whole
// of it must not be taken for lost.
func ProbeLease(attemptTimeout time.Duration) time.Duration {
	const least = 10 * time.Second
	return max(least, 2*min(Patience(attemptTimeout), NoTimeout/2))
}

// Ended is how ctx has ended: nil if it has not, context.DeadlineExceeded if its time is over, else its Err. It looks at
// the deadline too: a connection that knows it may report it before the timer of the context has fired, and a child of a
// context that ends by a timer of our own is told of a cancel.
func Ended(ctx context.Context, now time.Time) error {
	if deadline, ok := ctx.Deadline(); ok && !now.Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
