package idempotency

import (
	"errors"
	"time"
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

// A refusal is why the work did not run. Its methods are what package retry and package messaging ask an error: a
// claim in flight is worth another try after the hint, the others are not.
type refusal struct {
	err   error // one of the sentinels
	after time.Duration
}

func (e *refusal) Error() string   { return e.err.Error() }
func (e *refusal) Unwrap() error   { return e.err }
func (e *refusal) Permanent() bool { return e.err != ErrInFlight } //nolint:errorlint // never wrapped in here

// Hint says when another try can help.
func (e *refusal) Hint() (time.Duration, bool) { return e.after, e.err == ErrInFlight } //nolint:errorlint // see above
