// Package policytest plays the same rules over every transport, so that a word of the common vocabulary (Timeout,
// AttemptTimeout, Retry, Breakers) means the same in each.
package policytest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// A rule is one promise of the policy, played against an upstream that does what it scripts.
type rule struct {
	name     string
	config   config
	upstream func(n int) reply
	play     func(t *testing.T, s *scene)
}

// config is what the configs of all transports have in common.
type config struct {
	timeout, attemptTimeout time.Duration
	retry                   retry.Policy
	breaker                 breaker.Config
	budget                  retry.BudgetConfig
}

// A reply is what the upstream does with one attempt.
type reply struct {
	fail  bool
	after time.Duration // what it asks for with its failure; whole seconds, which every transport can say
	hang  bool          // until the caller has gone
}

// A scene is one rule over one transport.
type scene struct {
	send     func(ctx context.Context) result
	breakers *breaker.Group
	began    time.Time
	gaveUp   []*retry.Error // what Policy.OnGiveUp was told

	mu    sync.Mutex
	asked []time.Duration // when the upstream was asked, since began
}

// ask notes an attempt and returns its number, from 1. An upstream may learn of an attempt that its caller has left.
func (s *scene) ask() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, s.elapsed())
	return len(s.asked)
}

// seen is what the upstream has seen so far.
func (s *scene) seen() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// A result is what one call came to.
type result struct {
	ok       bool
	answered bool  // what the upstream answered last can be had: a response, a status, an error in the chain
	err      error // nil also where the last response is handed out
}

// elapsed is how long the scene has taken.
func (s *scene) elapsed() time.Duration { return time.Since(s.began) }

// why is the reason of the last call that gave up.
func (s *scene) why() retry.Reason {
	if len(s.gaveUp) == 0 {
		return -1
	}
	return s.gaveUp[len(s.gaveUp)-1].Reason
}

func up(int) reply   { return reply{} }
func down(int) reply { return reply{fail: true} }

// downUntil fails before the nth attempt.
func downUntil(n int) func(int) reply { return func(i int) reply { return reply{fail: i < n} } }

// asking fails and asks to be left alone for d, before the second attempt.
func asking(d time.Duration) func(int) reply {
	return func(i int) reply { return reply{fail: i < 2, after: d} }
}

// every is a policy of equal waits, so that a rule can name them.
type every time.Duration

func (e every) NextBackOff() time.Duration { return time.Duration(e) }
func (every) Reset()                       {}

func waits(d time.Duration) func() retry.Intervals { return func() retry.Intervals { return every(d) } }

var rules = []rule{
	{
		name:     "recovers at the third attempt",
		upstream: downUntil(3),
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).ok)
			assert.Len(t, s.seen(), 3)
			assert.LessOrEqual(t, s.elapsed(), 150*time.Millisecond, "two waits from 50 ms, drawn from zero on")
			assert.Empty(t, s.gaveUp)
		},
	},
	{
		name:     "gives up after MaxAttempts with the upstream's answer",
		config:   config{retry: retry.Policy{MaxAttempts: 4}},
		upstream: down,
		play: func(t *testing.T, s *scene) {
			r := s.send(t.Context())
			assert.False(t, r.ok)
			assert.True(t, r.answered)
			assert.Len(t, s.seen(), 4)
			require.Len(t, s.gaveUp, 1)
			assert.Equal(t, retry.Attempts, s.why())
			assert.Equal(t, 4, s.gaveUp[0].Attempts)
		},
	},
	{
		name:     "Never is one attempt",
		config:   config{retry: retry.Never()},
		upstream: down,
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).answered)
			assert.Len(t, s.seen(), 1)
			assert.Zero(t, s.elapsed())
		},
	},
	{
		name:     "one call may have a policy of its own",
		upstream: down,
		play: func(t *testing.T, s *scene) {
			s.send(retry.WithPolicy(t.Context(), retry.Never()))
			assert.Len(t, s.seen(), 1)
			s.send(t.Context())
			assert.Len(t, s.seen(), 4)
		},
	},
	{
		name:     "the breaker opens, refuses at once, and closes again",
		config:   config{breaker: breaker.Config{Consecutive: 3, Probes: 1}},
		upstream: downUntil(4),
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).answered)
			before := s.elapsed()
			r := s.send(t.Context())
			assert.False(t, r.ok)
			assert.ErrorIs(t, r.err, breaker.ErrOpen)
			open, ok := errors.AsType[*breaker.OpenError](r.err)
			require.True(t, ok)
			assert.Positive(t, open.RetryAfter)
			assert.Len(t, s.seen(), 3, "nothing reached the upstream")
			assert.Equal(t, before, s.elapsed())
			assert.Equal(t, retry.Refused, s.why())
			time.Sleep(open.RetryAfter)
			assert.True(t, s.send(t.Context()).ok)
			s.breakers.Each(func(b *breaker.Breaker) { assert.Equal(t, breaker.Closed, b.State()) })
		},
	},
	{
		name:     "the caller cancels the wait",
		config:   config{retry: retry.Policy{Backoff: waits(5 * time.Second)}},
		upstream: down,
		play: func(t *testing.T, s *scene) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			r := s.send(ctx)
			assert.Equal(t, time.Second, s.elapsed())
			assert.ErrorIs(t, r.err, context.Canceled)
			why, ok := errors.AsType[*retry.Error](r.err)
			require.True(t, ok)
			assert.Equal(t, retry.Cancelled, why.Reason)
			assert.Error(t, why.Err, "what the upstream answered is not lost")
			assert.Len(t, s.seen(), 1)
		},
	},
	{
		name:     "the caller cancels the attempt",
		config:   config{breaker: breaker.Config{Consecutive: 1}},
		upstream: func(int) reply { return reply{hang: true} },
		play: func(t *testing.T, s *scene) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			r := s.send(ctx)
			assert.Equal(t, time.Second, s.elapsed())
			assert.ErrorIs(t, r.err, context.Canceled)
			assert.Len(t, s.seen(), 1)
			s.breakers.Each(func(b *breaker.Breaker) {
				assert.Equal(t, breaker.Closed, b.State(), "who goes away says nothing about the upstream")
			})
		},
	},
	{
		name:     "no sleep into a doomed deadline",
		upstream: asking(5 * time.Second),
		play: func(t *testing.T, s *scene) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			assert.True(t, s.send(ctx).answered, "the upstream's failure, not the deadline's")
			assert.Zero(t, s.elapsed())
			assert.Len(t, s.seen(), 1)
			assert.Equal(t, retry.Deadline, s.why())
		},
	},
	{
		name:     "a hint is a floor, and at most a tenth more",
		upstream: asking(2 * time.Second),
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).ok)
			require.Len(t, s.seen(), 2)
			assert.GreaterOrEqual(t, s.seen()[1], 2*time.Second)
			assert.LessOrEqual(t, s.seen()[1], 2200*time.Millisecond)
		},
	},
	{
		name:     "a hint is capped where no deadline decides",
		config:   config{timeout: call.NoTimeout, attemptTimeout: call.NoTimeout},
		upstream: asking(31 * time.Second),
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).answered)
			assert.Zero(t, s.elapsed())
			assert.Equal(t, retry.Hint, s.why())
		},
	},
	{
		name:     "the budget denies, before any wait",
		config:   config{retry: retry.Policy{Backoff: waits(time.Second)}, budget: retry.BudgetConfig{Ratio: 1e-6, PerSecond: 0.1}},
		upstream: down,
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).answered)
			assert.Len(t, s.seen(), 2, "one retry is all that the budget holds")
			assert.Equal(t, time.Second, s.elapsed())
			assert.Equal(t, retry.Exhausted, s.why())
			assert.True(t, s.send(t.Context()).answered)
			assert.Len(t, s.seen(), 3)
			assert.Equal(t, time.Second, s.elapsed())
			time.Sleep(10 * time.Second)
			s.send(t.Context())
			assert.Len(t, s.seen(), 5, "time refills it")
		},
	},
	{
		name:     "an attempt that hangs ends, and another is made",
		upstream: func(n int) reply { return reply{hang: n == 1} },
		play: func(t *testing.T, s *scene) {
			assert.True(t, s.send(t.Context()).ok)
			require.Len(t, s.seen(), 2)
			assert.GreaterOrEqual(t, s.seen()[1], 3*time.Second)
		},
	},
	{
		name:     "all attempts together stay within the timeout",
		config:   config{retry: retry.Policy{MaxAttempts: 100, Budget: retry.Unlimited}, breaker: breaker.Config{Consecutive: 1000, MinCalls: 1000}},
		upstream: func(int) reply { return reply{hang: true} },
		play: func(t *testing.T, s *scene) {
			r := s.send(t.Context())
			assert.ErrorIs(t, r.err, context.DeadlineExceeded)
			assert.LessOrEqual(t, s.elapsed(), 10*time.Second)
			assert.Greater(t, s.elapsed(), 6*time.Second)
		},
	},
	{
		name:     "while another attempt is allowed, one gets half of what remains",
		upstream: func(n int) reply { return reply{hang: n == 1} },
		play: func(t *testing.T, s *scene) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			assert.True(t, s.send(ctx).ok)
			require.Len(t, s.seen(), 2)
			assert.GreaterOrEqual(t, s.seen()[1], time.Second)
			assert.Less(t, s.seen()[1], 1100*time.Millisecond)
		},
	},
	{
		name:     "what is done for a retry is not retried",
		upstream: down,
		play: func(t *testing.T, s *scene) {
			ctx, in := call.WithInbound(t.Context(), 2)
			assert.True(t, s.send(ctx).answered)
			assert.Len(t, s.seen(), 1)
			assert.Equal(t, retry.ChainStop, s.why())
			assert.False(t, in.GaveUp(), "its caller may try again")
		},
	},
	{
		name:     "a tier that gave up tells its caller",
		upstream: down,
		play: func(t *testing.T, s *scene) {
			ctx, in := call.WithInbound(t.Context(), 1)
			s.send(ctx)
			assert.Len(t, s.seen(), 3)
			assert.True(t, in.GaveUp())
		},
	},
	{
		name:     "a context that has ended reaches nobody",
		upstream: up,
		play: func(t *testing.T, s *scene) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.ErrorIs(t, s.send(ctx).err, context.Canceled)
			assert.Empty(t, s.seen())
		},
	},
}

// Each rule holds over each transport. Each pair runs in a bubble of its own, where an hour takes no time and what is
// left running fails the test.
func TestRules(t *testing.T) {
	for name, connect := range transports {
		t.Run(name, func(t *testing.T) {
			for _, r := range rules {
				t.Run(r.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { r.run(t, connect) })
				})
			}
		})
	}
}

func (r rule) run(t *testing.T, connect transport) {
	s := &scene{began: time.Now()}
	var err error
	s.breakers, err = breaker.NewGroup(breaker.GroupConfig{Config: r.config.breaker})
	require.NoError(t, err)
	c := r.config
	if c.budget != (retry.BudgetConfig{}) {
		c.retry.Budget, err = retry.NewBudget(c.budget)
		require.NoError(t, err)
	}
	c.retry.OnGiveUp = func(_ context.Context, e *retry.Error) { s.gaveUp = append(s.gaveUp, e) }
	s.send = connect(t, c, s.breakers, func(ctx context.Context) reply {
		assert.Zero(t, call.PeekMarks(ctx), "what the caller said of this call is not said of those below")
		a := r.upstream(s.ask())
		if a.hang {
			<-ctx.Done()
		}
		return a
	})
	r.play(t, s)
}
