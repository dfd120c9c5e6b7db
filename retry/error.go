package retry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// Reason says why a call ended without success.
type Reason int

// The reasons.
const (
	Stopped   Reason = iota // the error was not worth, or not safe, another attempt
	Attempts                // all attempts were made
	Exhausted               // the budget refused
	Deadline                // the next wait would have outlived the deadline
	Hint                    // the server asked for a longer wait than MaxHint
	Cancelled               // the context ended
	Refused                 // a breaker is open for longer than the call may wait
	ChainStop               // the inbound call is itself a retry: its caller tries again, not this tier
)

func (r Reason) String() string {
	switch r {
	case Stopped:
		return "not retryable"
	case Attempts:
		return "no attempts left"
	case Exhausted:
		return "budget exhausted"
	case Deadline:
		return "deadline too close"
	case Hint:
		return "server asked for too long a wait"
	case Cancelled:
		return "context ended"
	case Refused:
		return "breaker open"
	case ChainStop:
		return "caller is retrying"
	default:
		return fmt.Sprintf("Reason(%d)", int(r))
	}
}

// Error is a call that ended without success. errors.Is and errors.As find both Err and Cause through it.
type Error struct {
	Attempts int           // made; 0 if the call never began
	Elapsed  time.Duration // since the call began, waits included
	Reason   Reason
	Err      error // what the last attempt came to; nil if there was none
	Cause    error // the end of the context, if that ended the call; else nil
}

func (e *Error) Error() string {
	var b strings.Builder
	plural := "s"
	if e.Attempts == 1 {
		plural = ""
	}
	fmt.Fprintf(&b, "retry: after %d attempt%s in %v (%v", e.Attempts, plural, round(e.Elapsed), e.Reason)
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	b.WriteString(")")
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns Err and Cause, whichever are there.
func (e *Error) Unwrap() []error {
	both := make([]error, 0, 2)
	for _, err := range []error{e.Err, e.Cause} {
		if err != nil {
			both = append(both, err)
		}
	}
	return both
}

// Timeout reports whether the call failed for want of time: the end of the context, or what the last attempt came to.
// So a net.Error made of this one, such as *url.Error, answers rightly.
func (e *Error) Timeout() bool {
	for _, err := range e.Unwrap() {
		if t, ok := errors.AsType[interface {
			error
			Timeout() bool
		}](err); ok && t.Timeout() {
			return true
		}
	}
	return false
}

// Refused answers this package, where calls are made within calls: whether the attempt never reached anybody. Of several
// attempts an earlier one may have.
func (e *Error) Refused() bool { return e.Attempts <= 1 && Judge(e.Err).Refused }

// round leaves what a reader can use.
func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// endOf is how ctx has ended, as an error that is its cause as well.
func endOf(ctx context.Context, now time.Time) error {
	err, cause := call.Ended(ctx, now), context.Cause(ctx)
	switch {
	case cause == nil: // its deadline has passed, and no timer sees to it
		return err
	case errors.Is(cause, err):
		return cause
	default:
		return fmt.Errorf("%w: %w", err, cause)
	}
}

// Permanent marks err as not worth another attempt. The mark is found at any depth of a chain of errors and does not
// change the text. Permanent of nil is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ error }

func (e *permanent) Unwrap() error { return e.error }

// Permanent answers this package and package messaging.
func (e *permanent) Permanent() bool { return true }

// After marks err with the server's wish: not before d has passed. The mark is found at any depth of a chain of errors
// and does not change the text. Where err is Permanent too, that counts. A d of zero or less asks for nothing: the next
// attempt comes when the policy says. After of nil is nil.
func After(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &after{err, max(d, 0)}
}

type after struct {
	error
	d time.Duration
}

func (e *after) Unwrap() error { return e.error }

// Hint answers this package and package messaging.
func (e *after) Hint() (time.Duration, bool) { return e.d, true }
