package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

var errUpstream = errors.New("upstream text")

func succeed(context.Context) error { return nil }
func fail(context.Context) error    { return errUpstream }

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func breakerOf(t testing.TB, c breaker.Config) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New("payments", c)
	require.NoError(t, err)
	return b
}

// do makes n calls.
func do(b *breaker.Breaker, n int, op func(context.Context) error) {
	for range n {
		_ = b.Do(context.Background(), op)
	}
}

// halfOpen returns a breaker that has been open for exactly as long as it had to be.
func halfOpen(t *testing.T, c breaker.Config) *breaker.Breaker {
	t.Helper()
	b := breakerOf(t, c)
	b.Trip(time.Second)
	time.Sleep(time.Second)
	require.Equal(t, breaker.HalfOpen, b.State())
	return b
}

func allow(t *testing.T, b *breaker.Breaker) *breaker.Permit {
	t.Helper()
	p, err := b.Allow()
	require.NoError(t, err)
	return p
}

func refused(t *testing.T, err error) *breaker.OpenError {
	t.Helper()
	require.ErrorIs(t, err, breaker.ErrOpen)
	e, ok := errors.AsType[*breaker.OpenError](err)
	require.True(t, ok)
	return e
}

func TestOpensByRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Consecutive: math.MaxInt})
		do(b, 19, fail)
		require.Equal(t, breaker.Closed, b.State(), "fewer than MinCalls")
		do(b, 1, fail)
		require.Equal(t, breaker.Open, b.State())
	})
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Consecutive: math.MaxInt, FailureRatio: 0.28, MinCalls: 25})
		do(b, 18, succeed)
		do(b, 6, fail)
		require.Equal(t, breaker.Closed, b.State())
		do(b, 1, fail)
		require.Equal(t, breaker.Open, b.State(), "7 of 25 are 28 %%")
	})
}

func TestTheWindowRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Consecutive: math.MaxInt})
		do(b, 19, fail)
		time.Sleep(11 * time.Second)
		do(b, 19, fail)
		require.Equal(t, breaker.Closed, b.State(), "the first are out of the window")
	})
}

// A slow trickle of failures fades from every window; only a success says that the other side is well.
func TestFailuresInARowDoNotFade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Window: 100 * time.Millisecond, Consecutive: 5})
		for range 4 {
			do(b, 1, fail)
			time.Sleep(40 * time.Millisecond)
		}
		do(b, 1, succeed)
		for range 4 {
			do(b, 1, fail)
			time.Sleep(time.Minute)
		}
		require.Equal(t, breaker.Closed, b.State(), "a success came between")
		do(b, 1, fail)
		require.Equal(t, breaker.Open, b.State())
	})
}

// The mirror of it: a fixed window would take 9 % for 90 % after its boundary.
func TestNoBoundaryOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Consecutive: math.MaxInt})
		for range 50 {
			do(b, 10, succeed)
			do(b, 9, fail)
			do(b, 1, succeed)
			require.Equal(t, breaker.Closed, b.State())
			time.Sleep(700 * time.Millisecond)
		}
	})
}

// An outcome is counted when it is known. Counted at its admission, it would be out of the window by then.
func TestCallsLongerThanTheWindowCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Window: time.Second, Consecutive: math.MaxInt})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				do(b, 1, func(context.Context) error { time.Sleep(5 * time.Second); return errUpstream })
			})
		}
		wg.Wait()
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestClassify(t *testing.T) {
	cancelled := func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	}
	alive := func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }
	short := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Second)
	}
	hurried := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 299*time.Millisecond)
	}
	other := breakerOf(t, breaker.Config{})
	other.Trip(time.Hour)
	for name, c := range map[string]struct {
		ctx  func() (context.Context, context.CancelFunc)
		op   func(context.Context) error
		want breaker.State // after ten of them
	}{
		"success":                           {alive, succeed, breaker.Closed},
		"success, though the caller left":   {cancelled, succeed, breaker.Closed},
		"failure":                           {alive, fail, breaker.Open},
		"the caller left":                   {cancelled, hang, breaker.Closed},
		"the caller left, another error":    {cancelled, fail, breaker.Closed},
		"the caller's deadline":             {short, hang, breaker.Open},
		"a caller in a hurry":               {hurried, hang, breaker.Closed},
		"a timeout of the attempt's own":    {alive, timesOut, breaker.Open},
		"of the attempt, the caller's left": {short, timesOut, breaker.Open},
		"a refusal of another breaker":      {alive, func(ctx context.Context) error { return other.Do(ctx, succeed) }, breaker.Closed},
		"cancelled by the operation itself": {alive, func(context.Context) error { return context.Canceled }, breaker.Open},
		"the deadline, seen before its timer": {
			func() (context.Context, context.CancelFunc) { return lateTimer{context.Background()}, func() {} },
			func(context.Context) error { return context.DeadlineExceeded },
			breaker.Closed,
		},
		"time of our own that ran out, told as a cancel": {
			func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				until := time.Now().Add(time.Second)
				time.AfterFunc(time.Second, cancel)
				return &call.Bounded{Context: ctx, Until: until}, cancel
			}, hang, breaker.Open,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breakerOf(t, breaker.Config{})
				for range 10 {
					ctx, cancel := c.ctx()
					_ = b.Do(ctx, c.op)
					cancel()
				}
				require.Equal(t, c.want, b.State(), "got %v, want %v", b.State(), c.want)
			})
		})
	}
}

func timesOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	return hang(ctx)
}

// lateTimer is a context whose deadline has passed and whose timer has not fired yet.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now().Add(-1), true }

func TestClassifyOfTheUser(t *testing.T) {
	b := breakerOf(t, breaker.Config{Classify: func(_ context.Context, err error) breaker.Outcome {
		if err == nil {
			return breaker.Failure
		}
		return breaker.Ignored
	}})
	do(b, 100, fail)
	require.Equal(t, breaker.Closed, b.State())
	do(b, 10, succeed)
	require.Equal(t, breaker.Open, b.State())
}

// Ignored outcomes neither dilute the ratio nor end a row of failures.
func TestIgnoredCountsForNothing(t *testing.T) {
	b := breakerOf(t, breaker.Config{Consecutive: 20})
	for range 19 {
		allow(t, b).Done(breaker.Failure)
		for range 10 {
			allow(t, b).Done(breaker.Ignored)
		}
	}
	require.Equal(t, breaker.Closed, b.State())
	allow(t, b).Done(breaker.Failure)
	require.Equal(t, breaker.Open, b.State())
}

func TestOpenRefusesAndSaysUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{})
		b.Trip(5 * time.Second)
		time.Sleep(2 * time.Second)
		called := false
		e := refused(t, b.Do(t.Context(), func(context.Context) error { called = true; return nil }))
		require.False(t, called)
		require.Equal(t, breaker.OpenError{Name: "payments", State: breaker.Open, RetryAfter: 3 * time.Second}, *e)
		require.EqualError(t, e, "breaker: payments is open, come back in 3s")
		require.Equal(t, 3*time.Second, b.RetryAfter())
		hint, ok := e.Hint()
		require.True(t, ok)
		require.Equal(t, 3*time.Second, hint)
		require.True(t, e.Refused())

		time.Sleep(3 * time.Second)
		require.Zero(t, b.RetryAfter())
		require.NoError(t, b.Do(t.Context(), succeed), "RetryAfter is exact")
	})
}

// The state follows the clock though nobody calls.
func TestStateIsComputedWithTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		b := breakerOf(t, breaker.Config{
			ProbeLease:    time.Minute,
			OnStateChange: func(context.Context, breaker.StateChange) { changes++ },
		})
		require.Equal(t, breaker.Closed, b.State())
		b.Trip(time.Second)
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(time.Second)
		require.Equal(t, breaker.HalfOpen, b.State())
		allow(t, b)
		require.Equal(t, 2, changes)
		time.Sleep(time.Minute)
		require.Equal(t, breaker.Open, b.State(), "the lease is over")
		reopens := b.RetryAfter()
		require.InDelta(t, 10*time.Second, reopens, float64(2*time.Second))
		time.Sleep(reopens)
		require.Equal(t, breaker.HalfOpen, b.State())
		require.Equal(t, 2, changes, "asking for the state calls nobody")
		allow(t, b).Done(breaker.Success)
		require.Equal(t, 4, changes)
	})
}

func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Config{})
		a, c := allow(t, b), allow(t, b)
		a.Done(breaker.Success)
		d := allow(t, b)
		_, err := b.Allow()
		e := refused(t, err)
		require.Equal(t, breaker.HalfOpen, e.State)
		require.Equal(t, 500*time.Millisecond, e.RetryAfter, "a probe ends soon, or its lease does")
		require.Equal(t, e.RetryAfter, b.RetryAfter())
		c.Done(breaker.Success)
		require.Equal(t, breaker.HalfOpen, b.State())
		d.Done(breaker.Success)
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestAFailedProbeReopens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Config{})
		a, c := allow(t, b), allow(t, b)
		a.Done(breaker.Failure)
		require.Equal(t, breaker.Open, b.State())
		c.Done(breaker.Success)
		require.Equal(t, breaker.Open, b.State())
	})
}

// A probe whose caller goes away is no evidence at all: it neither closes nor opens, and gives its place back.
func TestAnIgnoredProbeFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Config{Probes: 1})
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			require.ErrorIs(t, b.Do(ctx, hang), context.Canceled)
			require.Equal(t, breaker.HalfOpen, b.State())
		}
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestNoStampedeOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Config{Probes: 7})
		var calls atomic.Int64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_ = b.Do(t.Context(), func(context.Context) error {
					calls.Add(1)
					time.Sleep(time.Second)
					return nil
				})
			})
		}
		wg.Wait()
		require.Equal(t, int64(7), calls.Load())
		require.Equal(t, breaker.Closed, b.State())
	})
}

// Whatever becomes of a probe, half-open ends.
func TestALostProbeDoesNotWedge(t *testing.T) {
	for name, lose := range map[string]func(b *breaker.Breaker){
		"forgotten": func(b *breaker.Breaker) { _, _ = b.Allow() },
		"hanging": func(b *breaker.Breaker) {
			go do(b, 1, func(context.Context) error { time.Sleep(time.Hour); return nil })
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := halfOpen(t, breaker.Config{Probes: 1})
				lose(b)
				time.Sleep(10*time.Second - 1)
				require.Equal(t, breaker.HalfOpen, b.State())
				_, err := b.Allow()
				require.Equal(t, time.Duration(1), refused(t, err).RetryAfter)
				time.Sleep(time.Nanosecond)
				require.Equal(t, breaker.Open, b.State(), "a lost probe has failed")
				time.Sleep(b.RetryAfter())
				require.NoError(t, b.Do(t.Context(), succeed))
				require.Equal(t, breaker.Closed, b.State())
				time.Sleep(2 * time.Hour) // the hanging one ends and counts for nothing
				require.Equal(t, breaker.Closed, b.State())
			})
		})
	}
}

// The first lease to end decides, wherever its probe stands among the others.
func TestTheOldestLeaseDecides(t *testing.T) {
	for _, forgotten := range []int{0, 1, 2} {
		synctest.Test(t, func(t *testing.T) {
			b := halfOpen(t, breaker.Config{})
			first := []*breaker.Permit{allow(t, b), allow(t, b), allow(t, b)}
			time.Sleep(5 * time.Second)
			for i, p := range first {
				if i != forgotten {
					p.Done(breaker.Ignored)
					allow(t, b)
				}
			}
			time.Sleep(5*time.Second - 1)
			require.Equal(t, breaker.HalfOpen, b.State())
			time.Sleep(time.Nanosecond)
			require.Equal(t, breaker.Open, b.State())
		})
	}
}

func TestDoneCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := halfOpen(t, breaker.Config{})
		p := allow(t, b)
		for range 3 {
			p.Done(breaker.Success)
		}
		require.Equal(t, breaker.HalfOpen, b.State(), "one probe closed a breaker that needs three")
		p.Done(breaker.Failure)
		require.Equal(t, breaker.HalfOpen, b.State())
	})
}

func TestLateOutcomesAreDropped(t *testing.T) {
	for _, o := range []breaker.Outcome{breaker.Success, breaker.Failure} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breakerOf(t, breaker.Config{Probes: 1, Consecutive: 1})
				late := allow(t, b)
				b.Trip(time.Second)
				time.Sleep(time.Second)
				probe := allow(t, b)
				late.Done(o)
				require.Equal(t, breaker.HalfOpen, b.State(), "of the closed era, while a probe is under way")
				probe.Done(breaker.Failure)
				time.Sleep(b.RetryAfter())
				allow(t, b).Done(breaker.Success)
				require.Equal(t, breaker.Closed, b.State())

				late = allow(t, b)
				b.Reset()
				late.Done(o)
				require.Equal(t, breaker.Closed, b.State(), "of before a Reset")
			})
		})
	}
}

func TestOpenTimesGrowAndAreJittered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const breakers = 1000
		at := map[int][]time.Duration{}
		for range breakers {
			b := breakerOf(t, breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 3 * time.Second})
			do(b, 1, fail)
			for i := range 4 {
				at[i] = append(at[i], b.RetryAfter())
				time.Sleep(b.RetryAfter())
				do(b, 1, fail)
			}
			time.Sleep(b.RetryAfter())
			do(b, 3, succeed)
			require.Equal(t, breaker.Closed, b.State())
			do(b, 1, fail)
			at[0] = append(at[0], b.RetryAfter())
		}
		for i, want := range []time.Duration{1, 2, 3, 3} {
			want *= time.Second
			require.GreaterOrEqual(t, slices.Min(at[i]), want*8/10, "opening %d", i)
			require.Less(t, slices.Min(at[i]), want*82/100, "opening %d", i)
			require.LessOrEqual(t, slices.Max(at[i]), want*12/10, "opening %d", i)
			require.Greater(t, slices.Max(at[i]), want*118/100, "opening %d", i)
		}
	})
}

func TestTimesDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Consecutive: 1, OpenFor: math.MaxInt64, ProbeLease: math.MaxInt64})
		for range 20 {
			do(b, 1, fail)
			require.Equal(t, breaker.Open, b.State())
			require.Greater(t, b.RetryAfter(), 200*365*24*time.Hour)
			b.Reset()
		}
		b.Trip(math.MaxInt64)
		require.Equal(t, breaker.Open, b.State())
		b.Trip(1)
		time.Sleep(time.Nanosecond)
		allow(t, b)
		time.Sleep(time.Hour)
		require.Equal(t, breaker.HalfOpen, b.State())
	})
}

func TestSlowCalls(t *testing.T) {
	slow := func(context.Context) error { time.Sleep(2 * time.Second); return nil }
	c := breaker.Config{SlowAfter: time.Second, SlowRatio: 0.5, Window: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, c)
		do(b, 10, succeed)
		do(b, 9, slow)
		require.Equal(t, breaker.Closed, b.State())
		do(b, 1, slow)
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(b.RetryAfter())
		do(b, 1, slow)
		require.Equal(t, breaker.Open, b.State(), "a slow probe has failed")
		time.Sleep(b.RetryAfter())
		do(b, 3, succeed)
		require.Equal(t, breaker.Closed, b.State())
	})
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, c)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_ = b.Do(ctx, hang)
			cancel()
		}
		require.Equal(t, breaker.Open, b.State(), "callers who waited in vain know that it is slow")
	})
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{Window: time.Hour})
		do(b, 100, slow)
		require.Equal(t, breaker.Closed, b.State(), "off by default")
	})
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, c)
		for range 100 {
			allow(t, b).Done(breaker.Ignored)
		}
		do(b, 20, slow)
		require.Equal(t, breaker.Open, b.State(), "what was ignored and fast is not a fast call")
	})
}

func TestTripAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{})
		b.Trip(time.Hour)
		require.Equal(t, time.Hour, b.RetryAfter())
		b.Trip(time.Minute)
		require.Equal(t, time.Minute, b.RetryAfter(), "whatever its state")
		b.Trip(0)
		require.InDelta(t, 5*time.Second, b.RetryAfter(), float64(time.Second))
		b.Reset()
		require.Equal(t, breaker.Closed, b.State())
		do(b, 9, fail)
		b.Reset()
		do(b, 9, fail)
		require.Equal(t, breaker.Closed, b.State(), "a Reset forgets")
		do(b, 1, fail)
		require.Equal(t, breaker.Open, b.State())
	})
}

// legal are the changes there can be without Trip and Reset.
func legal(e breaker.StateChange) bool {
	switch e.From {
	case breaker.Closed:
		return e.To == breaker.Open
	case breaker.Open:
		return e.To == breaker.HalfOpen
	default:
		return e.To == breaker.Closed || e.To == breaker.Open
	}
}

func TestCallbacksComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *breaker.Breaker
		var running atomic.Int32
		state, changes := breaker.Closed, 0
		b = breakerOf(t, breaker.Config{
			Consecutive: 1, Probes: 1, OpenFor: time.Microsecond, MaxOpenFor: time.Microsecond,
			OnStateChange: func(_ context.Context, e breaker.StateChange) {
				if running.Add(1) != 1 {
					t.Error("two callbacks at once")
				}
				defer running.Add(-1)
				if e.From != state || !legal(e) || (e.To == breaker.Open) != (e.OpenFor > 0) || e.Name != "payments" {
					t.Errorf("illegal after %v: %+v", state, e)
				}
				state = e.To
				changes++
				b.State() // may call the breaker
				_ = b.Do(context.Background(), succeed)
			},
		})
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 2500 {
					if (i+g)%2 == 0 {
						do(b, 1, fail)
					} else {
						do(b, 1, succeed)
					}
					time.Sleep(time.Microsecond)
				}
			})
		}
		wg.Wait()
		require.Greater(t, changes, 1000)
	})
}

func TestCallbacksSurvive(t *testing.T) {
	for name, end := range map[string]func(){
		"a panic":                  func() { panic("callback") },
		"the end of the goroutine": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []breaker.State
				var b *breaker.Breaker
				b = breakerOf(t, breaker.Config{OnStateChange: func(_ context.Context, e breaker.StateChange) {
					got = append(got, e.To)
					if len(got) == 1 {
						b.Reset() // queued behind this one
						end()
					}
				}})
				var wg sync.WaitGroup
				wg.Go(func() { b.Trip(time.Second) })
				wg.Wait()
				require.Equal(t, []breaker.State{breaker.Open, breaker.Closed}, got)
				b.Trip(time.Second)
				require.Len(t, got, 3)
			})
		})
	}
}

func TestNoCallbackWithoutAChange(t *testing.T) {
	changes := 0
	b := breakerOf(t, breaker.Config{OnStateChange: func(context.Context, breaker.StateChange) { changes++ }})
	b.Reset()
	require.Zero(t, changes)
	b.Trip(time.Hour)
	b.Trip(time.Minute)
	require.Equal(t, 1, changes)
}

func TestCallbacksHaveTheContextOfTheCall(t *testing.T) {
	type key struct{}
	var got any
	b := breakerOf(t, breaker.Config{Consecutive: 1, OnStateChange: func(ctx context.Context, _ breaker.StateChange) {
		got = ctx.Value(key{})
	}})
	_ = b.Do(context.WithValue(t.Context(), key{}, "trace"), fail)
	require.Equal(t, "trace", got)
}

// The fault is of this process: it neither opens a closed breaker nor ends the trial of a half-open one.
func TestAPanicSaysNothing(t *testing.T) {
	for name, end := range map[string]func(b *breaker.Breaker){
		"panic": func(b *breaker.Breaker) {
			require.PanicsWithValue(t, "op", func() { do(b, 1, func(context.Context) error { panic("op") }) })
		},
		"end of the goroutine": func(b *breaker.Breaker) {
			var wg sync.WaitGroup
			wg.Go(func() { do(b, 1, func(context.Context) error { runtime.Goexit(); return nil }) })
			wg.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breakerOf(t, breaker.Config{Consecutive: 1})
				end(b)
				require.Equal(t, breaker.Closed, b.State())
				b = halfOpen(t, breaker.Config{Probes: 1})
				end(b)
				require.Equal(t, breaker.HalfOpen, b.State())
				require.NoError(t, b.Do(t.Context(), succeed), "its place is free")
				require.Equal(t, breaker.Closed, b.State())
			})
		})
	}
}

func TestNil(t *testing.T) {
	var b *breaker.Breaker
	require.NoError(t, b.Do(t.Context(), succeed))
	require.ErrorIs(t, b.Do(t.Context(), fail), errUpstream)
	p, err := b.Allow()
	require.NoError(t, err)
	p.Done(breaker.Failure)
	(*breaker.Permit)(nil).Done(breaker.Failure)
	new(breaker.Permit).Done(breaker.Failure)
	b.Trip(time.Hour)
	b.Reset()
	require.Equal(t, breaker.Closed, b.State())
	require.Zero(t, b.RetryAfter())
	require.Empty(t, b.Name())
}

func TestConfigFaults(t *testing.T) {
	_, err := breaker.New("x", breaker.Config{
		Window: -1, MinCalls: -1, FailureRatio: -0.1, Consecutive: -1, SlowAfter: -1, SlowRatio: 1.1, OpenFor: -1,
		MaxOpenFor: -1, Probes: -1, ProbeLease: -1,
	})
	for _, name := range []string{
		"Window", "MinCalls", "FailureRatio", "Consecutive", "SlowAfter", "SlowRatio", "OpenFor", "MaxOpenFor", "Probes", "ProbeLease",
	} {
		require.ErrorContains(t, err, name)
	}
	_, err = breaker.New("x", breaker.Config{FailureRatio: math.NaN()})
	require.Error(t, err)
	_, err = breaker.New("x", breaker.Config{OpenFor: 2, MaxOpenFor: 1})
	require.ErrorContains(t, err, "over MaxOpenFor")
	breakerOf(t, breaker.Config{OpenFor: time.Hour})
	b := breakerOf(t, breaker.Config{})
	require.Equal(t, "payments", b.Name())
}

// What package retry makes of a breaker: one try and no sleep where it stays open for long, a wait where not.
func TestBehindRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breakerOf(t, breaker.Config{})
		call := func(ctx context.Context) error { return b.Do(ctx, succeed) }
		b.Trip(5 * time.Second)
		err := retry.Policy{}.Do(t.Context(), call)
		require.ErrorIs(t, err, breaker.ErrOpen)
		e, _ := errors.AsType[*retry.Error](err)
		require.Equal(t, retry.Refused, e.Reason)
		require.Equal(t, 1, e.Attempts)
		require.Zero(t, e.Elapsed)

		b.Trip(time.Second)
		require.NoError(t, retry.Policy{}.Do(t.Context(), call))
	})
}

func TestNothingIsAllocatedWhileClosed(t *testing.T) {
	for name, c := range map[string]breaker.Config{"default": {}, "slow": {SlowAfter: time.Hour}} {
		b := breakerOf(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		require.Zero(t, testing.AllocsPerRun(1000, func() { _ = b.Do(ctx, succeed) }), name)
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			p, err := b.Allow()
			if err == nil {
				p.Done(breaker.Success)
			}
		}), name)
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "closed open half-open State(9)",
		fmt.Sprint(breaker.Closed, breaker.Open, breaker.HalfOpen, breaker.State(9)))
}
