package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// What a transport does between Again and Wait, such as draining an answer, does not make the wait longer.
func TestTheWaitBeginsWithTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		tries := retry.Policy{Backoff: every(100 * time.Millisecond)}.Start(t.Context())
		require.True(t, tries.Again(retry.Outcome{Err: errUpstream}))
		time.Sleep(80 * time.Millisecond)
		require.NoError(t, tries.Wait())
		require.Equal(t, 100*time.Millisecond, time.Since(start))
		require.True(t, tries.Again(retry.Outcome{Err: errUpstream}))
		time.Sleep(150 * time.Millisecond)
		require.NoError(t, tries.Wait())
		require.Equal(t, 250*time.Millisecond, time.Since(start))
	})
}

// A context whose deadline no timer enforces ends the call like any other, and what the last attempt came to is not lost.
func TestADeadlineWithoutATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gaveUp *retry.Error
		p := retry.Policy{
			Backoff: every(100 * time.Millisecond), OnGiveUp: func(_ context.Context, e *retry.Error) { gaveUp = e },
		}
		tries := p.Start(&call.Bounded{Context: t.Context(), Until: time.Now().Add(200 * time.Millisecond)})
		require.True(t, tries.Again(retry.Outcome{Err: errUpstream}))
		time.Sleep(200 * time.Millisecond)
		end := tries.Wait()
		require.ErrorIs(t, end, context.DeadlineExceeded)
		e := failed(t, tries.Wrap(end))
		require.Equal(t, errUpstream, e.Err)
		require.Equal(t, retry.Cancelled, e.Reason)
		require.Equal(t, 1, e.Attempts)
		require.True(t, e.Timeout())
		require.Equal(t, e, gaveUp)
	})
}

// So it does when it passes within the attempt, and the caller had better not begin anew.
func TestADeadlineWithoutATimerPassesInTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, in := call.WithInbound(t.Context(), 1)
		tries := retry.Policy{}.Start(&call.Bounded{Context: ctx, Until: time.Now().Add(time.Second)})
		time.Sleep(time.Second)
		require.False(t, tries.Again(retry.Outcome{Err: errUpstream}))
		e := failed(t, tries.Wrap(errUpstream))
		require.Equal(t, retry.Cancelled, e.Reason)
		require.ErrorIs(t, e, context.DeadlineExceeded)
		require.ErrorIs(t, e, errUpstream)
		require.True(t, in.GaveUp())
	})
}

// A failure that opened the breaker is followed by an attempt that waits for it, or by none.
func TestTheBreakerThatAFailureOpened(t *testing.T) {
	for rule, c := range map[string]struct {
		o    retry.Outcome
		wait time.Duration
		want retry.Reason
	}{
		"it is waited for":            {o: retry.Outcome{Open: time.Second}, wait: time.Second},
		"so is the longer wish":       {o: retry.Outcome{Open: time.Second, Hint: 5 * time.Second, Hinted: true}, wait: 5 * time.Second},
		"but not the shorter one":     {o: retry.Outcome{Open: time.Second, Hint: time.Millisecond, Hinted: true}, wait: time.Second},
		"a hint that is none":         {o: retry.Outcome{Open: time.Second, Hint: time.Minute}, wait: time.Second},
		"longer than a wait of ours":  {o: retry.Outcome{Open: 3 * time.Second}, want: retry.Refused},
		"for what is not worth it":    {o: retry.Outcome{Open: time.Second, Stop: true}, want: retry.Stopped},
		"it does not break the chain": {o: retry.Outcome{Open: time.Second}, want: retry.ChainStop},
	} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.want == retry.ChainStop {
					ctx, _ = call.WithInbound(ctx, 2)
				}
				start := time.Now()
				c.o.Err = errUpstream
				tries := retry.Policy{}.Start(ctx)
				again := tries.Again(c.o)
				require.Equal(t, c.wait > 0, again, "%v", tries.Reason())
				if !again {
					require.Equal(t, c.want, tries.Reason(), "%v", tries.Reason())
					return
				}
				require.NoError(t, tries.Wait())
				require.GreaterOrEqual(t, time.Since(start), c.wait)
				require.LessOrEqual(t, time.Since(start), c.wait+c.wait/10)
			})
		})
	}
}

// An override cannot be returned as faulty, and must not turn into a storm.
func TestAFaultyOverrideIsOneAttempt(t *testing.T) {
	for _, p := range []retry.Policy{
		{MaxAttempts: -1},
		{MaxAttempts: 5, BaseDelay: -1},
		{MaxAttempts: 5, MaxDelay: -1},
		{MaxAttempts: 5, BaseDelay: 2, MaxDelay: 1},
	} {
		s := plays(errUpstream)
		fails(t, retry.Policy{}.Do(retry.WithPolicy(t.Context(), p), s.op))
		require.Equal(t, 1, s.calls)
	}
}

// A call within a call, whose last attempt was refused, may have reached somebody before.
func TestRefusedAfterAnAttempt(t *testing.T) {
	refusal := &foreign{refused: true}
	require.True(t, retry.Judge(&retry.Error{Attempts: 1, Err: refusal}).Refused)
	require.False(t, retry.Judge(&retry.Error{Attempts: 2, Err: refusal}).Refused)
	require.False(t, retry.Judge(&retry.Error{Attempts: 1, Err: errors.New("reset")}).Refused)
}
