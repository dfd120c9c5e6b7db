package breaker

import (
	"errors"
	"fmt"
	"time"
)

// ErrOpen is what errors.Is finds in every refusal of a breaker.
var ErrOpen = errors.New("breaker: open")

// OpenError is the refusal of a breaker that is open, or half-open with all probes under way.
type OpenError struct {
	Name       string
	State      State
	RetryAfter time.Duration // when to come back; see Breaker.RetryAfter
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("breaker: %s is %v, come back in %v", e.Name, e.State, e.RetryAfter.Round(time.Millisecond))
}

// Is makes errors.Is(err, ErrOpen) true.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Hint answers package retry: come back after RetryAfter.
func (e *OpenError) Hint() (time.Duration, bool) { return e.RetryAfter, true }

// Refused answers package retry: the call never reached the other side.
func (e *OpenError) Refused() bool { return true }
