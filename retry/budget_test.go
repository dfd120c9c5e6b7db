package retry_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/retry"
)

// spend makes failing calls until the budget refuses, and returns how many retries it allowed.
func spend(b *retry.Budget) int {
	retries := 0
	for range 100_000 {
		tries := retry.Policy{MaxAttempts: 2, Budget: b}.Start(context.Background())
		if !tries.Again(retry.Outcome{Err: errUpstream}) {
			return retries
		}
		retries++
	}
	return retries
}

func budget(t *testing.T, c retry.BudgetConfig) *retry.Budget {
	t.Helper()
	b, err := retry.NewBudget(c)
	require.NoError(t, err)
	return b
}

func TestBudgetBoundsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := retry.Policy{Budget: budget(t, retry.BudgetConfig{}), Backoff: every(time.Nanosecond)}
		calls := 0
		for range 1000 {
			_ = p.Do(t.Context(), func(context.Context) error { calls++; return errUpstream })
		}
		require.InDelta(t, 1000+200+30, calls, 1, "20 %% of first attempts and 10 s of 3 per second")
	})
}

func TestBudgetRefillsByTimeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{Ratio: 1e-6})
		require.Equal(t, int64(30), b.Level(), "full at first")
		require.Equal(t, 30, spend(b))
		require.Equal(t, int64(0), b.Level())
		require.Equal(t, int64(1), b.Denied())
		time.Sleep(time.Second)
		require.Equal(t, 3, spend(b))
		time.Sleep(time.Hour)
		require.Equal(t, 30, spend(b), "never more than a window's worth at once")
	})
}

func TestBudgetShareExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{Ratio: 0.5, PerSecond: 1e-9})
		for range 100 {
			retry.Policy{Budget: b}.Start(t.Context())
		}
		require.Equal(t, int64(50+1), b.Level())
		time.Sleep(9 * time.Second)
		require.Equal(t, int64(50+1), b.Level())
		time.Sleep(2 * time.Second)
		require.Equal(t, int64(1), b.Level())
	})
}

// A refusal names the budget and keeps the error; it comes before the wait.
func TestBudgetIsAskedBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{})
		spend(b)
		e := failed(t, retry.Policy{Budget: b, Backoff: every(time.Second)}.Do(t.Context(), plays(errUpstream).op))
		require.Equal(t, retry.Error{Attempts: 1, Reason: retry.Exhausted, Err: errUpstream}, *e)
	})
}

// What another rule refuses costs nothing.
func TestBudgetIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{Ratio: 1e-6})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := retry.Policy{Budget: b, Backoff: every(time.Minute)}
		fails(t, p.Do(ctx, plays(errUpstream).op))
		fails(t, p.Do(ctx, plays(retry.Permanent(errUpstream)).op))
		fails(t, p.Do(ctx, plays(retry.After(errUpstream, time.Hour)).op))
		fails(t, retry.Policy{Budget: b, MaxAttempts: 1}.Do(ctx, plays(errUpstream).op))
		require.Equal(t, int64(30), b.Level())
	})
}

func TestARefusedAttemptIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{})
		spend(b)
		s := plays(&foreign{refused: true, hinted: true, hint: time.Second}, nil)
		require.NoError(t, retry.Policy{Budget: b}.Do(t.Context(), s.op))
	})
}

func TestUnlimitedAndNoBudget(t *testing.T) {
	require.Equal(t, 100_000, spend(retry.Unlimited))
	require.Equal(t, 100_000, spend(nil))
	require.Equal(t, int64(math.MaxInt64), retry.Unlimited.Level())
	require.Zero(t, retry.Unlimited.Denied())
	require.Equal(t, int64(math.MaxInt64), (*retry.Budget)(nil).Level())
	require.Zero(t, (*retry.Budget)(nil).Denied())
}

func TestBudgetSharedByManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{})
		var calls atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					_ = retry.Policy{Budget: b, Backoff: every(0)}.Do(t.Context(), func(context.Context) error {
						calls.Add(1)
						return errUpstream
					})
				}
			})
		}
		wg.Wait()
		require.InDelta(t, 1000+200+30, calls.Load(), 1, "checked and taken in two steps")
	})
}

func TestBudgetConfig(t *testing.T) {
	for _, c := range []retry.BudgetConfig{
		{Ratio: -1},
		{Ratio: math.NaN()},
		{Ratio: math.Inf(1)},
		{PerSecond: -1},
		{PerSecond: math.NaN()},
		{PerSecond: math.Inf(1)},
		{Window: -1},
		{Window: 9},
	} {
		_, err := retry.NewBudget(c)
		require.Error(t, err, "%+v", c)
	}
	_, err := retry.NewBudget(retry.BudgetConfig{Ratio: -1, PerSecond: -1, Window: -1})
	for _, name := range []string{"Ratio", "PerSecond", "Window"} {
		require.ErrorContains(t, err, name)
	}
	huge := budget(t, retry.BudgetConfig{Ratio: math.MaxFloat64, PerSecond: math.MaxFloat64, Window: math.MaxInt64})
	require.Equal(t, 100_000, spend(huge))
	require.Positive(t, huge.Level())
}

// However long a budget has not been used, using it again costs no more.
func TestBudgetAfterALongTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(t, retry.BudgetConfig{Ratio: 1, PerSecond: 1e-9, Window: 10})
		retry.Policy{Budget: b}.Start(t.Context())
		time.Sleep(10 * 365 * 24 * time.Hour)
		require.Equal(t, int64(1), b.Level())
	})
}

// A budget made outside a test's bubble and used within meets a clock that is decades behind.
func TestBudgetOfAnotherClock(t *testing.T) {
	b := budget(t, retry.BudgetConfig{Ratio: 1e-6})
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 30, spend(b))
		time.Sleep(time.Second)
		require.Equal(t, 3, spend(b))
	})
}

func TestBudgetShareIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			ratio  float64
			firsts int
			want   int64
		}{{0.2, 5, 1}, {0.2, 15, 3}, {0.29, 100, 29}, {0.7, 10, 7}, {1, 7, 7}, {2, 3, 6}} {
			b := budget(t, retry.BudgetConfig{Ratio: c.ratio, PerSecond: 1e-9})
			tries := make([]retry.Tries, c.firsts)
			for i := range tries {
				tries[i] = retry.Policy{Budget: b, MaxAttempts: math.MaxInt}.Start(t.Context())
			}
			require.Equal(t, c.want+1, b.Level(), "%+v", c)
			allowed := int64(0)
			for tries[0].Again(retry.Outcome{Err: errUpstream}) {
				allowed++
			}
			require.Equal(t, c.want+1, allowed, "%+v", c)
		}
	})
}
