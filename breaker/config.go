package breaker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// Config configures a Breaker. The zero Config is right for calls to a service.
type Config struct {
	Window       time.Duration // over which the ratios are taken. Zero: 10 s
	MinCalls     int           // fewer in the window never open by ratio. Zero: 20
	FailureRatio float64       // opens at this share of failures. Zero: 0.5
	Consecutive  int           // opens at this many failures in a row, which only a success resets. Zero: 10
	SlowAfter    time.Duration // a call that takes longer is slow, whatever its outcome; a slow probe fails. Zero: no call is
	SlowRatio    float64       // opens at this share of slow calls. Zero: 0.8
	OpenFor      time.Duration // how long it stays open the first time, +/- 20 %. Zero: 5 s
	MaxOpenFor   time.Duration // it doubles at each reopening up to this, before the 20 %. Zero: 10 s, or OpenFor if longer
	Probes       int           // probes admitted when half-open, and successes needed to close. Zero: 3
	ProbeLease   time.Duration // a probe without outcome after this counts as failed. Zero: 10 s
	// Classify judges the error of Do. Zero: nil is success; the refusal of another breaker is ignored, and so is the end
	// of the caller's own context, but for a deadline that left the call 300 ms or more; any other error is failure, a
	// timeout of the operation's own included.
	Classify func(ctx context.Context, err error) Outcome
	// OnStateChange is called after each change, in order, without a lock held; it may call the Breaker. The context is
	// that of the call that made the change, where it has one. A panic in it is swallowed. Zero: nothing is called.
	OnStateChange func(ctx context.Context, e StateChange)
}

// A StateChange tells of one transition.
type StateChange struct {
	Name     string
	From, To State
	OpenFor  time.Duration // when To is Open
}

// validate reports every fault at once.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf("breaker: "+format, a...)) }
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"Window", c.Window},
		{"SlowAfter", c.SlowAfter},
		{"OpenFor", c.OpenFor},
		{"MaxOpenFor", c.MaxOpenFor},
		{"ProbeLease", c.ProbeLease},
	} {
		if f.d < 0 {
			fault("%s %v is negative", f.name, f.d)
		}
	}
	for _, f := range []struct {
		name string
		n    int
	}{{"MinCalls", c.MinCalls}, {"Consecutive", c.Consecutive}, {"Probes", c.Probes}} {
		if f.n < 0 {
			fault("%s %d is negative", f.name, f.n)
		}
	}
	for _, f := range []struct {
		name string
		r    float64
	}{{"FailureRatio", c.FailureRatio}, {"SlowRatio", c.SlowRatio}} {
		if !(f.r >= 0 && f.r <= 1) { // NaN is neither
			fault("%s %v is not between 0 and 1", f.name, f.r)
		}
	}
	if c.MaxOpenFor > 0 && c.OpenFor > c.MaxOpenFor {
		fault("OpenFor %v is over MaxOpenFor %v", c.OpenFor, c.MaxOpenFor)
	}
	return errors.Join(faults...)
}

// filled returns c with every zero field set to its default.
func (c Config) filled() Config {
	setDefault(&c.Window, 10*time.Second)
	setDefault(&c.MinCalls, 20)
	setDefault(&c.FailureRatio, 0.5)
	setDefault(&c.Consecutive, 10)
	setDefault(&c.SlowRatio, 0.8)
	setDefault(&c.OpenFor, 5*time.Second)
	setDefault(&c.MaxOpenFor, max(10*time.Second, c.OpenFor))
	setDefault(&c.Probes, 3)
	setDefault(&c.ProbeLease, 10*time.Second)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// classify is the default of Config.Classify. A caller in a hurry says nothing about the other side; but one that waited
// in vain does, or a breaker under a deadline would never notice that nobody answers.
func classify(ctx context.Context, err error, started time.Time) Outcome {
	if err == nil {
		return Success
	}
	if errors.Is(err, ErrOpen) {
		return Ignored
	}
	now := time.Now()
	switch ended := call.Ended(ctx, now); {
	case ended == nil:
		return Failure
	case errors.Is(ended, context.DeadlineExceeded) && now.Sub(started) >= call.Telling(call.NoTimeout):
		return Failure
	default:
		return Ignored
	}
}
