package breaker_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
)

// FuzzNeverLies drives a breaker at random and holds what it says against what it does: State and RetryAfter agree with
// the next Allow, callbacks with State, no more probes are under way than may be, and it always recovers.
func FuzzNeverLies(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			told := breaker.Closed
			c := breaker.Config{
				Probes: 1 + r.IntN(4), Consecutive: 1 + r.IntN(5), MinCalls: 1 + r.IntN(10), ProbeLease: 3 * time.Second,
				Window: 10 * time.Second, OpenFor: time.Second, MaxOpenFor: 4 * time.Second,
				OnStateChange: func(_ context.Context, e breaker.StateChange) {
					require.Equal(t, told, e.From)
					told = e.To
				},
			}
			if seed%2 == 1 {
				c.SlowAfter = 500 * time.Millisecond
			}
			b := breakerOf(t, c)
			var under []*breaker.Permit
			for range 300 {
				switch r.IntN(10) {
				case 0:
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
				case 1:
					time.Sleep(b.RetryAfter())
				case 2:
					b.Trip(time.Duration(r.IntN(3000)-500) * time.Millisecond)
					require.Equal(t, breaker.Open, b.State())
				case 3:
					if r.IntN(10) == 0 {
						b.Reset()
						require.Equal(t, breaker.Closed, b.State())
					}
				case 4, 5, 6:
					if len(under) > 0 {
						i := r.IntN(len(under))
						under[i].Done(breaker.Outcome(r.IntN(3)))
						under = append(under[:i], under[i+1:]...)
					}
				default:
					state, after := b.State(), b.RetryAfter()
					p, err := b.Allow()
					require.Equal(t, after == 0, err == nil, "RetryAfter is %v in %v", after, state)
					require.Equal(t, state, b.State())
					if err == nil {
						require.NotEqual(t, breaker.Open, state)
						under = append(under, p)
						break
					}
					e := refused(t, err)
					require.Equal(t, state, e.State)
					require.Equal(t, after, e.RetryAfter)
					require.LessOrEqual(t, e.RetryAfter, 5*time.Second)
				}
			}
			for range 100 {
				time.Sleep(b.RetryAfter())
				_ = b.Do(t.Context(), succeed)
			}
			require.Equal(t, breaker.Closed, b.State(), "it does not recover")
			require.Equal(t, breaker.Closed, told)
		})
	})
}

// No half-open era admits more calls than it needs.
func TestProbesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(50) {
			r := rand.New(rand.NewPCG(seed, 1))
			n := 1 + r.IntN(5)
			b := halfOpen(t, breaker.Config{Probes: n})
			var under []*breaker.Permit
			ended := 0
			for b.State() == breaker.HalfOpen {
				if p, err := b.Allow(); err == nil {
					under = append(under, p)
				}
				require.LessOrEqual(t, len(under)+ended, n)
				if i := r.IntN(len(under) + 1); i < len(under) {
					o := breaker.Ignored
					if r.IntN(2) == 0 {
						o = breaker.Success
						ended++
					}
					under[i].Done(o)
					under = append(under[:i], under[i+1:]...)
				}
			}
			require.Equal(t, n, ended)
			require.Equal(t, breaker.Closed, b.State())
		}
	})
}
