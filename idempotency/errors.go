package idempotency

import (
	"errors"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// The errors that callers branch on.
var (
	ErrInFlight   = errors.New("idempotency: in flight")             // somebody else is at it
	ErrMismatch   = errors.New("idempotency: key used otherwise")    // the key was used for something else
	ErrLost       = errors.New("idempotency: claim lost")            // somebody else has the claim
	ErrUnknown    = errors.New("idempotency: outcome unknown")       // an owner vanished in the middle
	ErrFull       = errors.New("idempotency: store full")            // a bounded store refuses
	ErrNotKept    = errors.New("idempotency: done, result not kept") // a tombstone
	ErrInvalidKey = errors.New("idempotency: invalid key")           // empty or too long
)

// KeptError is an error that was kept and is answered again.
type KeptError struct{ Text string }

func (e *KeptError) Error() string { return e.Text }

// Permanent answers package retry: it would be the same again.
func (e *KeptError) Permanent() bool { return true }

// refused is the error of a Claim that comes to no work, and is marked as package retry reads it: what is in flight is
// worth another try after the hint, the others are not.
func refused(c Claim) error {
	switch c.Status {
	case InFlight:
		return retry.After(ErrInFlight, c.RetryAfter)
	case Mismatch:
		return retry.Permanent(ErrMismatch)
	default:
		return retry.Permanent(ErrUnknown)
	}
}

// A delay asks for another delivery of a message. It is no failure of the message, whatever err says of itself.
type delay struct {
	err   error
	after time.Duration
}

func (e *delay) Error() string               { return e.err.Error() }
func (e *delay) Unwrap() error               { return e.err }
func (e *delay) Permanent() bool             { return false }
func (e *delay) Hint() (time.Duration, bool) { return e.after, true }
