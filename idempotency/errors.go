package idempotency

import "errors"

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
