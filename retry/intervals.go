package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// fullJitter draws uniformly from [0, min(most, base*2^n)]. backoff draws around its interval, so half of each is given
// to it with a randomization of 1, and its cap comes before the draw.
func fullJitter(base, most time.Duration) Intervals {
	b := &backoff.ExponentialBackOff{
		InitialInterval:     base / 2,
		MaxInterval:         most / 2,
		RandomizationFactor: 1,
		Multiplier:          2,
		Stop:                backoff.Stop,
		Clock:               backoff.SystemClock,
	}
	b.Reset()
	return b
}
