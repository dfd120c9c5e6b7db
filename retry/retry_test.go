package retry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

var (
	errUpstream = errors.New("upstream text")
	errSlow     = errors.New("took until the end of the context")
)

// script is an operation that returns its errors one after the other, then the last one for ever; it counts its calls
// and notes when they came.
type script struct {
	errs  []error
	calls int
	at    []time.Duration
	start time.Time
}

func plays(errs ...error) *script { return &script{errs: errs, start: time.Now()} }

func (s *script) op(context.Context) error {
	s.at = append(s.at, time.Since(s.start))
	err := s.errs[min(s.calls, len(s.errs)-1)]
	s.calls++
	return err
}

// failed asserts that err is a *retry.Error and returns it.
func failed(t *testing.T, err error) *retry.Error {
	t.Helper()
	e, ok := errors.AsType[*retry.Error](err)
	require.True(t, ok, "got %T %v, want *retry.Error", err, err)
	return e
}

// fails asserts that err is a *retry.Error, where nothing more is asked of it.
func fails(t *testing.T, err error) {
	t.Helper()
	_ = failed(t, err)
}

// steady waits d each time.
type steady time.Duration

func (s steady) NextBackOff() time.Duration { return time.Duration(s) }
func (s steady) Reset()                     {}

func every(d time.Duration) func() retry.Intervals {
	return func() retry.Intervals { return steady(d) }
}

func TestSuccessAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := plays(errUpstream, errUpstream, nil)
		require.NoError(t, retry.Policy{}.Do(t.Context(), s.op))
		require.Equal(t, 3, s.calls)
		require.LessOrEqual(t, time.Since(s.start), 150*time.Millisecond, "ceilings of 50 and 100 ms")
	})
}

func TestAttemptsCountTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := plays(errUpstream)
		e := failed(t, retry.Policy{MaxAttempts: 4, Backoff: every(time.Second)}.Do(t.Context(), s.op))
		require.Equal(t, 4, s.calls)
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}, s.at)
		require.Equal(t, retry.Error{Attempts: 4, Elapsed: 3 * time.Second, Reason: retry.Attempts, Err: errUpstream}, *e)
		require.EqualError(t, e, "retry: after 4 attempts in 3s (no attempts left): upstream text")
	})
}

func TestNeverIsOneAttempt(t *testing.T) {
	s := plays(errUpstream)
	e := failed(t, retry.Never().Do(t.Context(), s.op))
	require.Equal(t, 1, s.calls)
	require.Equal(t, 1, e.Attempts)
}

func TestPermanentStops(t *testing.T) {
	for name, err := range map[string]error{
		"plain":          retry.Permanent(errUpstream),
		"wrapped":        fmt.Errorf("reading: %w", retry.Permanent(errUpstream)),
		"with a wish":    retry.After(retry.Permanent(errUpstream), time.Millisecond),
		"joined":         errors.Join(errors.New("other"), retry.Permanent(errUpstream)),
		"of a call":      retry.Never().Do(t.Context(), func(context.Context) error { return retry.Permanent(errUpstream) }),
		"with text only": &foreign{permanent: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := plays(err)
			e := failed(t, retry.Policy{}.Do(t.Context(), s.op))
			require.Equal(t, 1, s.calls)
			require.Equal(t, retry.Stopped, e.Reason)
			require.ErrorIs(t, e, err)
		})
	}
	require.NoError(t, retry.Permanent(nil))
	require.NoError(t, retry.After(nil, time.Second))
	require.NotErrorIs(t, retry.Permanent(errUpstream), retry.Permanent(errors.New("another")))
	require.EqualError(t, retry.After(retry.Permanent(errUpstream), 1), errUpstream.Error())
}

// foreign is an error of somebody else's that answers the questions of this package.
type foreign struct {
	permanent, refused, hinted bool
	hint                       time.Duration
}

func (f *foreign) Error() string               { return "foreign" }
func (f *foreign) Permanent() bool             { return f.permanent }
func (f *foreign) Refused() bool               { return f.refused }
func (f *foreign) Hint() (time.Duration, bool) { return f.hint, f.hinted }

func TestJudge(t *testing.T) {
	inner := &foreign{permanent: true, hinted: true, hint: time.Hour, refused: true}
	outer := fmt.Errorf("sending: %w", &around{foreign{hinted: true, hint: time.Second}, inner})
	require.Equal(t, retry.Outcome{Err: outer, Hinted: true, Hint: time.Second}, retry.Judge(outer), "the outermost answers")
	require.Equal(t, retry.Outcome{Err: inner, Stop: true, Hinted: true, Hint: time.Hour, Refused: true, Free: true}, retry.Judge(inner))
	require.Equal(t, retry.Outcome{Err: errUpstream}, retry.Judge(errUpstream))
}

// around answers for itself, whatever is within.
type around struct {
	foreign
	within error
}

func (a *around) Unwrap() error { return a.within }

func TestRetryableIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := retry.Policy{Retryable: func(error) bool { return false }}
		s := plays(errUpstream)
		require.Equal(t, retry.Stopped, failed(t, no.Do(t.Context(), s.op)).Reason)
		require.Equal(t, 1, s.calls)

		s = plays(retry.After(errUpstream, time.Second), nil)
		require.NoError(t, no.Do(t.Context(), s.op), "After is asked first")

		tries := no.Start(t.Context())
		require.False(t, tries.Again(retry.Outcome{Err: errUpstream, Hinted: true, Hint: 1}), "only an error answers first")
	})
}

func TestHintIsAFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wish = 700 * time.Millisecond
		p := retry.Policy{MaxAttempts: 10_001}
		s := plays(retry.After(errUpstream, wish))
		fails(t, p.Do(t.Context(), s.op))
		longest := time.Duration(0)
		for i := 1; i < len(s.at); i++ {
			wait := s.at[i] - s.at[i-1]
			require.GreaterOrEqual(t, wait, wish)
			require.LessOrEqual(t, wait, wish+wish/10)
			longest = max(longest, wait)
		}
		require.Greater(t, longest, wish+wish/20, "no jitter over the floor")
	})
}

func TestHintOfZeroAsksForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := plays(retry.After(errUpstream, -time.Second), nil)
		var told retry.Event
		p := retry.Policy{Backoff: every(time.Second), OnRetry: func(_ context.Context, e retry.Event) { told = e }}
		require.NoError(t, p.Do(t.Context(), s.op))
		require.Equal(t, []time.Duration{0, time.Second}, s.at, "the policy's own wait, not a retry at once")
		require.False(t, told.Hinted)
	})
}

func TestHintBeyondTheCap(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration // zero: none
		hint     time.Duration
		maxHint  time.Duration
		refused  bool
		want     retry.Reason // Attempts: obeyed
	}{
		"fits the default cap":                  {hint: 30 * time.Second, want: retry.Attempts},
		"over the default cap":                  {hint: 30*time.Second + 1, want: retry.Hint},
		"over its own cap":                      {hint: 2 * time.Second, maxHint: time.Second, want: retry.Hint},
		"over the cap, but the deadline fits":   {hint: time.Minute, deadline: time.Hour, want: retry.Attempts},
		"under the cap, but over the deadline":  {hint: 2 * time.Second, deadline: time.Second, want: retry.Deadline},
		"nothing left after it":                 {hint: time.Second, deadline: time.Second, want: retry.Deadline},
		"the longest there is":                  {hint: math.MaxInt64, want: retry.Hint},
		"the longest there is and a cap of it":  {hint: math.MaxInt64, maxHint: math.MaxInt64, deadline: time.Minute, want: retry.Deadline},
		"an open breaker over the cap":          {hint: time.Minute, refused: true, want: retry.Refused},
		"an open breaker over the deadline":     {hint: time.Minute, deadline: time.Second, refused: true, want: retry.Refused},
		"an open breaker, longer than a wait":   {hint: 2*time.Second + 1, deadline: time.Minute, refused: true, want: retry.Refused},
		"an open breaker that closes in time":   {hint: time.Second, deadline: time.Minute, refused: true, want: retry.Attempts},
		"fits, though its jitter would not fit": {hint: 998 * time.Millisecond, deadline: time.Second, want: retry.Attempts},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				s := plays(&foreign{hint: c.hint, hinted: true, refused: c.refused})
				e := failed(t, retry.Policy{MaxAttempts: 2, MaxHint: c.maxHint}.Do(ctx, s.op))
				require.Equal(t, c.want, e.Reason, "got %v, want %v", e.Reason, c.want)
				if c.want == retry.Attempts {
					require.Equal(t, 2, s.calls)
					require.GreaterOrEqual(t, e.Elapsed, c.hint)
				} else {
					require.Equal(t, 1, s.calls)
					require.Zero(t, e.Elapsed, "a wait that is not worth it")
				}
			})
		})
	}
}

func TestFullJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const draws = 10_000
		waits := make([][]time.Duration, 6)
		for range draws {
			s := plays(errUpstream)
			fails(t, retry.Policy{MaxAttempts: 7, BaseDelay: 100 * time.Millisecond, MaxDelay: time.Second}.Do(t.Context(), s.op))
			for i := range waits {
				waits[i] = append(waits[i], s.at[i+1]-s.at[i])
			}
		}
		for i, ceiling := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			ceiling *= time.Millisecond
			var sum, most time.Duration
			for _, w := range waits[i] {
				sum += w
				most = max(most, w)
			}
			assert.LessOrEqual(t, most, ceiling, "wait %d is over its ceiling", i+1)
			assert.Greater(t, most, ceiling*95/100, "wait %d never comes near its ceiling", i+1)
			assert.InDelta(t, 0.5, float64(sum)/draws/float64(ceiling), 0.02, "mean of wait %d", i+1)
		}
	})
}

func TestNoSleepIntoADoomedDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		s := plays(errUpstream)
		e := failed(t, retry.Policy{Backoff: every(time.Second)}.Do(ctx, s.op))
		require.Equal(t, retry.Error{Attempts: 1, Reason: retry.Deadline, Err: errUpstream}, *e)
		require.NotErrorIs(t, e, context.DeadlineExceeded, "the deadline has not passed")
	})
}

func TestBothErrorsWhenTheContextEnds(t *testing.T) {
	shutdown := errors.New("shutting down")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(shutdown) })
		s := plays(errUpstream)
		e := failed(t, retry.Policy{Backoff: every(400 * time.Millisecond)}.Do(ctx, s.op))
		require.Equal(t, 1, s.calls)
		require.Equal(t, 50*time.Millisecond, e.Elapsed, "slept on after the cancel")
		require.Equal(t, retry.Cancelled, e.Reason)
		for _, want := range []error{errUpstream, context.Canceled, shutdown} {
			require.ErrorIs(t, e, want)
		}
		require.EqualError(t, e,
			"retry: after 1 attempt in 50ms (context ended: context canceled: shutting down): upstream text")
	})
}

func TestContextEndsWithinTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
		defer cancel()
		calls := 0
		e := failed(t, retry.Policy{}.Do(ctx, func(ctx context.Context) error {
			calls++
			<-ctx.Done()
			return fmt.Errorf("reading: %w", errUpstream)
		}))
		require.Equal(t, 1, calls)
		require.Equal(t, retry.Cancelled, e.Reason)
		require.ErrorIs(t, e, context.DeadlineExceeded)
		require.ErrorIs(t, e, errUpstream)
	})
}

func TestContextEndedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := plays(nil)
	e := failed(t, retry.Policy{}.Do(ctx, s.op))
	require.Zero(t, s.calls)
	require.Equal(t, retry.Error{Reason: retry.Cancelled, Cause: context.Canceled}, *e)
	require.Equal(t, []error{context.Canceled}, e.Unwrap())
}

func TestAttemptTimeoutIsNotTheCallers(t *testing.T) {
	slow := func(calls *int) func(context.Context) error {
		return func(ctx context.Context) error {
			*calls++
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if *calls == 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
	}
	p := retry.Policy{Backoff: every(time.Millisecond)}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		calls := 0
		require.NoError(t, p.Do(ctx, slow(&calls)))
		require.Equal(t, 3, calls)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
		defer cancel()
		calls := 0
		e := failed(t, p.Do(ctx, slow(&calls)))
		require.Equal(t, 2, calls)
		require.Equal(t, retry.Cancelled, e.Reason)
		require.Equal(t, context.DeadlineExceeded, e.Cause)
	})
}

// A second limit on elapsed time would count the operation and leave no retry here.
func TestNoClockBesidesAttemptsAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		fails(t, retry.Policy{}.Do(t.Context(), func(context.Context) error {
			calls++
			time.Sleep(time.Hour)
			return errUpstream
		}))
		require.Equal(t, 3, calls)
	})
}

func TestNegativeIntervalStops(t *testing.T) {
	s := plays(retry.After(errUpstream, time.Millisecond))
	e := failed(t, retry.Policy{Backoff: every(-1)}.Do(t.Context(), s.op))
	require.Equal(t, 1, s.calls, "a generator that ends, ends hinted retries as well")
	require.Equal(t, retry.Attempts, e.Reason)
}

func TestBackoffIsMadePerCallAndLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		made := 0
		p := retry.Policy{Backoff: func() retry.Intervals {
			mu.Lock()
			defer mu.Unlock()
			made++
			return &counting{}
		}}
		require.NoError(t, p.Do(t.Context(), plays(nil).op))
		require.Zero(t, made, "made before the first failure")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { fails(t, p.Do(t.Context(), plays(errUpstream).op)) })
		}
		wg.Wait()
		require.Equal(t, 100, made)
	})
}

// counting is not safe for two goroutines at once, like those of backoff.
type counting struct{ n int }

func (c *counting) NextBackOff() time.Duration { c.n++; return time.Duration(c.n) }
func (c *counting) Reset()                     {}

func TestOnRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "trace")
		var events []retry.Event
		s := plays(errUpstream, retry.After(errUpstream, time.Second), nil)
		p := retry.Policy{OnRetry: func(ctx context.Context, e retry.Event) {
			require.Equal(t, "trace", ctx.Value(key{}))
			events = append(events, e)
			panic("contained")
		}}
		require.NoError(t, p.Do(ctx, s.op))
		require.Len(t, events, 2)
		for i, e := range events {
			require.Equal(t, i+1, e.Attempt)
			require.Equal(t, s.at[i+1]-s.at[i], e.Delay, "the delay told is not the delay slept")
			require.Equal(t, i == 1, e.Hinted)
			require.ErrorIs(t, e.Err, errUpstream)
		}
	})
}

func TestOnGiveUp(t *testing.T) {
	for name, c := range map[string]struct {
		errs   []error
		policy retry.Policy
		cancel bool
		want   []retry.Reason
	}{
		"success":                 {errs: []error{errUpstream, nil}},
		"attempts":                {errs: []error{errUpstream}, want: []retry.Reason{retry.Attempts}},
		"one attempt":             {errs: []error{errUpstream}, policy: retry.Never(), want: []retry.Reason{retry.Attempts}},
		"nothing worth a retry":   {errs: []error{retry.Permanent(errUpstream)}},
		"a retry not worth more":  {errs: []error{errUpstream, retry.Permanent(errUpstream)}, want: []retry.Reason{retry.Stopped}},
		"the context in the wait": {errs: []error{errUpstream}, policy: retry.Policy{Backoff: every(time.Hour)}, cancel: true, want: []retry.Reason{retry.Cancelled}},
		"a hint that is too long": {errs: []error{retry.After(errUpstream, time.Hour)}, want: []retry.Reason{retry.Hint}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel {
					time.AfterFunc(time.Minute, cancel)
				}
				var got []retry.Reason
				var told *retry.Error
				c.policy.OnGiveUp = func(_ context.Context, e *retry.Error) {
					got, told = append(got, e.Reason), e
					panic("contained")
				}
				err := c.policy.Do(ctx, plays(c.errs...).op)
				require.Equal(t, c.want, got)
				if told != nil {
					require.Equal(t, err, error(told))
				}
			})
		})
	}
}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		e    retry.Error
		want bool
	}{
		{retry.Error{}, false},
		{retry.Error{Err: errUpstream}, false},
		{retry.Error{Err: errUpstream, Cause: context.Canceled}, false},
		{retry.Error{Err: errUpstream, Cause: context.DeadlineExceeded}, true},
		{retry.Error{Err: fmt.Errorf("reading: %w", context.DeadlineExceeded)}, true},
	} {
		require.Equal(t, c.want, c.e.Timeout(), "%v", &c.e)
	}
}

func TestAttemptNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 1, retry.Attempt(t.Context()))
		var outer, inner []int
		fails(t, retry.Policy{MaxAttempts: 2}.Do(t.Context(), func(ctx context.Context) error {
			outer = append(outer, retry.Attempt(ctx))
			return retry.Policy{MaxAttempts: 3}.Do(ctx, func(ctx context.Context) error {
				inner = append(inner, retry.Attempt(ctx))
				return errUpstream
			})
		}))
		require.Equal(t, []int{1, 2}, outer)
		require.Equal(t, []int{1, 2, 3, 1, 2, 3}, inner)
	})
}

func TestMarksAreTakenByTheFirstCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := retry.WithPolicy(t.Context(), retry.Policy{MaxAttempts: 5, BaseDelay: time.Second})
		ctx = retry.WithPolicy(ctx, retry.Never())
		ctx = retry.Idempotent(ctx)

		tries := retry.Policy{MaxAttempts: 4}.Start(ctx)
		require.True(t, tries.Idempotent())
		require.True(t, tries.Last(), "the later override comes first")
		below := retry.Policy{}.Start(tries.Context())
		require.False(t, below.Idempotent())
		require.False(t, below.Last())

		s := plays(errUpstream)
		fails(t, retry.Policy{}.Do(ctx, func(ctx context.Context) error { return retry.Policy{}.Do(ctx, s.op) }))
		require.Equal(t, 3, s.calls, "the inner call is below the first one")
	})
}

func TestOr(t *testing.T) {
	d := retry.Policy{MaxAttempts: 5, BaseDelay: time.Second, MaxDelay: time.Minute, MaxHint: time.Hour, Budget: retry.Unlimited}
	require.Equal(t, d, retry.Policy{}.Or(d))
	require.Equal(t, retry.Unlimited, retry.Never().Or(d).Budget)
	require.Equal(t, 1, retry.Never().Or(d).MaxAttempts)

	p := retry.Policy{BaseDelay: time.Hour}.Or(d)
	require.Equal(t, time.Hour, p.MaxDelay, "a default below what was set")
	p = retry.Policy{MaxDelay: time.Millisecond}.Or(d)
	require.Equal(t, time.Millisecond, p.BaseDelay, "a default above what was set")
	require.NoError(t, p.Validate())
}

func TestValidate(t *testing.T) {
	require.NoError(t, retry.Policy{}.Validate())
	require.NoError(t, retry.Never().Validate())
	bad := retry.Policy{MaxAttempts: -1, BaseDelay: -1, MaxDelay: -2, MaxHint: -3}
	for _, name := range []string{"MaxAttempts", "BaseDelay", "MaxDelay", "MaxHint"} {
		require.ErrorContains(t, bad.Validate(), name)
	}
	require.ErrorContains(t, retry.Policy{BaseDelay: 2, MaxDelay: 1}.Validate(), "over MaxDelay")

	s := plays(nil)
	e := failed(t, bad.Do(t.Context(), s.op))
	require.Zero(t, s.calls)
	require.Zero(t, e.Attempts)
}

func TestDoValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		v, err := retry.DoValue(t.Context(), retry.Policy{}, func(context.Context) (int, error) {
			n++
			if n < 3 {
				return 0, errUpstream
			}
			return 42, nil
		})
		require.NoError(t, err)
		require.Equal(t, 42, v)
	})
}

func TestChain(t *testing.T) {
	hint := func(d time.Duration) error { return &foreign{hint: d, hinted: true, refused: true} }
	exhausted, err := retry.NewBudget(retry.BudgetConfig{Ratio: 0.001, PerSecond: 0.001})
	require.NoError(t, err)
	spend(exhausted)
	for name, c := range map[string]struct {
		inbound  int // attempt of the caller; 0: nobody waits
		err      error
		policy   retry.Policy
		deadline time.Duration
		want     retry.Reason
		calls    int
		gaveUp   bool
	}{
		"first attempt, retries end":        {inbound: 1, err: errUpstream, want: retry.Attempts, calls: 3, gaveUp: true},
		"a retry is not retried below":      {inbound: 2, err: errUpstream, want: retry.ChainStop, calls: 1},
		"unless it never reached anybody":   {inbound: 2, err: hint(0), want: retry.Attempts, calls: 3, gaveUp: true},
		"redelivered messages do not count": {inbound: 0, err: errUpstream, want: retry.Attempts, calls: 3},
		"no retries, none that ended":       {inbound: 1, err: errUpstream, policy: retry.Never(), want: retry.Attempts, calls: 1},
		"not worth a retry":                 {inbound: 1, err: retry.Permanent(errUpstream), want: retry.Stopped, calls: 1},
		"budget":                            {inbound: 1, err: errUpstream, policy: retry.Policy{Budget: exhausted}, want: retry.Exhausted, calls: 1, gaveUp: true},
		"doomed deadline":                   {inbound: 1, err: errUpstream, policy: retry.Policy{Backoff: every(time.Hour)}, deadline: time.Second, want: retry.Deadline, calls: 1, gaveUp: true},
		"open breaker":                      {inbound: 1, err: hint(time.Hour), want: retry.Refused, calls: 1, gaveUp: true},
		"open breaker of a single try":      {inbound: 1, err: hint(time.Hour), policy: retry.Never(), want: retry.Attempts, calls: 1},
		"too long a wish":                   {inbound: 1, err: retry.After(errUpstream, time.Hour), want: retry.Hint, calls: 1, gaveUp: true},
		"own timeout within an attempt":     {inbound: 1, err: errSlow, deadline: time.Second, want: retry.Cancelled, calls: 1, gaveUp: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, in := call.WithInbound(t.Context(), c.inbound)
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				s := plays(c.err)
				e := failed(t, c.policy.Do(ctx, func(ctx context.Context) error {
					if errors.Is(c.err, errSlow) {
						<-ctx.Done()
					}
					return s.op(ctx)
				}))
				require.Equal(t, c.want, e.Reason, "got %v, want %v", e.Reason, c.want)
				require.Equal(t, c.calls, s.calls)
				require.Equal(t, c.gaveUp, in.GaveUp())
			})
		})
	}
}

func TestNothingIsAllocatedOnSuccess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b, err := retry.NewBudget(retry.BudgetConfig{})
	require.NoError(t, err)
	p := retry.Policy{Budget: b}
	op := func(context.Context) error { return nil }
	value := func(context.Context) (int, error) { return 1, nil }
	for name, f := range map[string]func(){
		"Do":      func() { _ = p.Do(ctx, op) },
		"DoValue": func() { _, _ = retry.DoValue(ctx, p, value) },
		"Tries": func() {
			tries := p.Start(ctx)
			_ = tries.Context()
			_ = tries.Wrap(nil)
		},
	} {
		require.Zero(t, testing.AllocsPerRun(1000, f), name)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := retry.Stopped; r <= retry.ChainStop; r++ {
		require.False(t, seen[r.String()], r)
		seen[r.String()] = true
	}
	require.Equal(t, "Reason(99)", retry.Reason(99).String())
}

func BenchmarkDo(b *testing.B) {
	budget, err := retry.NewBudget(retry.BudgetConfig{})
	require.NoError(b, err)
	p := retry.Policy{Budget: budget}
	op := func(context.Context) error { return nil }
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Do(ctx, op)
	}
}
