package retry

import "time"

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

func (r Reason) String() string { panic("unwritten") }

// Error is a call that ended without success.
type Error struct {
	Attempts int
	Elapsed  time.Duration
	Reason   Reason
	Err      error // what the last attempt came to
	Cause    error // the end of the context, if that ended the call; else nil
}

func (e *Error) Error() string   { panic("unwritten") }
func (e *Error) Unwrap() []error { panic("unwritten") }
