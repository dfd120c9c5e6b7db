package call_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/call"
)

func TestLimit(t *testing.T) {
	const attempt = 3 * time.Second
	for _, c := range []struct {
		rule          string
		attempt, rest time.Duration
		more          bool
		want          time.Duration
	}{
		{"the attempt timeout", attempt, 10 * time.Second, true, attempt},
		{"half of what remains", attempt, 2 * time.Second, true, time.Second},
		{"all of it for the last one", attempt, 2 * time.Second, false, 2 * time.Second},
		{"no less than a millisecond", attempt, 1500 * time.Microsecond, true, time.Millisecond},
		{"but not more than there is", attempt, time.Microsecond, true, time.Microsecond},
		{"without an attempt timeout", call.NoTimeout, 2 * time.Second, true, time.Second},
		{"without any end", call.NoTimeout, call.NoTimeout, false, call.NoTimeout},
	} {
		require.Equal(t, c.want, call.Limit(c.attempt, c.rest, c.more), c.rule)
	}
}

func TestWhatFollowsFromTheAttemptTimeout(t *testing.T) {
	require.Equal(t, 300*time.Millisecond, call.Telling(3*time.Second))
	require.Equal(t, 300*time.Millisecond, call.Telling(call.NoTimeout))
	require.Equal(t, 10*time.Second, call.ProbeLease(3*time.Second))
	require.Equal(t, time.Minute, call.ProbeLease(30*time.Second))
	require.Equal(t, 10*time.Second, call.ProbeLease(call.NoTimeout))
	require.Positive(t, call.ProbeLease(call.NoTimeout-1))
}

func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		now := time.Now()
		bounded := &call.Bounded{Context: ctx, Until: now.Add(time.Second)}
		require.NoError(t, call.Ended(ctx, now))
		require.NoError(t, call.Ended(bounded, now))
		require.ErrorIs(t, call.Ended(bounded, now.Add(time.Second)), context.DeadlineExceeded)
		cancel()
		require.ErrorIs(t, call.Ended(bounded, now), context.Canceled)
		require.ErrorIs(t, call.Ended(bounded, now.Add(time.Hour)), context.DeadlineExceeded, "whoever cancelled it then")
	})
}
