package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/retry"
)

func breakers(t *testing.T, c breaker.Config) *breaker.Group {
	t.Helper()
	g, err := breaker.NewGroup(breaker.GroupConfig{Config: c})
	require.NoError(t, err)
	return g
}

const key = "http://service.test"

// What counts against the other side. A success in between tells "ignored" from "success": only the latter breaks a
// row of failures.
func TestOutcome(t *testing.T) {
	type outcome string
	const success, failure, ignored outcome = "success", "failure", "ignored"
	gone := func(d time.Duration) func(*testing.T) (context.Context, context.CancelFunc) {
		return func(t *testing.T) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(d, cancel)
			return ctx, cancel
		}
	}
	until := func(d time.Duration) func(*testing.T) (context.Context, context.CancelFunc) {
		return func(t *testing.T) (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), d) }
	}
	for _, c := range []struct {
		rule string
		ctx  func(*testing.T) (context.Context, context.CancelFunc)
		then step
		want outcome
	}{
		{"200", nil, answer(200), success},
		{"304", nil, answer(304), success},
		{"404", nil, answer(404), success},
		{"408", nil, answer(408), success},
		{"429", nil, answer(429), success},
		{"500", nil, answer(500), failure},
		{"501 is about the request", nil, answer(501), success},
		{"503", nil, answer(503), failure},
		{"504", nil, answer(504), failure},
		{"503 of a tier that is well itself", nil, answer(503, "Tandem-Retry", "no"), ignored},
		{"500 of a tier that is well itself", nil, answer(500, "Tandem-Retry", "no"), ignored},
		{"reset", nil, fail(errReset), failure},
		{"dial", nil, fail(&net.OpError{Op: "dial", Err: errReset}), failure},
		{"attempt timeout", nil, silence, failure},
		{"the caller went away", gone(time.Second), silence, ignored},
		{"the caller's time ran out, and there was enough", until(time.Second), silence, failure},
		{"the caller was in a hurry", until(time.Second / 5), silence, ignored},
		{"an answer when the caller's time is over, and there was little", until(100500 * time.Microsecond), after(100*time.Millisecond, answer(504)), ignored},
		{"an answer when the caller's time is over, and there was enough", until(time.Second + 500*time.Microsecond), after(time.Second, answer(504)), failure},
		{"an answer while there is time", until(200 * time.Millisecond), after(100*time.Millisecond, answer(504)), failure},
		{"a refusal of another breaker below", nil, fail(&breaker.OpenError{RetryAfter: time.Hour}), ignored},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := breakers(t, breaker.Config{Consecutive: 2, MinCalls: 1000})
				w := newWire(fail(errReset), c.then, fail(errReset))
				tr := transport(t, w, client.Config{Breakers: g, Retry: retry.Never()})
				for i := range 3 {
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if i == 1 && c.ctx != nil {
						ctx, cancel = c.ctx(t)
					}
					res, err := get(ctx, t, tr)
					if err == nil {
						text(t, res)
					}
					if i == 1 {
						require.Equal(t, c.want == failure, g.Get(key).State() == breaker.Open, "opens at the second failure")
					}
					cancel()
				}
				require.Equal(t, c.want != success, g.Get(key).State() == breaker.Open, "only a success breaks the row")
			})
		})
	}
}

// An open breaker is not called, and its refusal is what the caller gets, at once.
func TestOpenBreaker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{})
		g.Get(key).Trip(time.Hour)
		w := newWire(answer(200))
		_, err := get(t.Context(), t, transport(t, w, client.Config{Breakers: g}))
		refusal, ok := errors.AsType[*breaker.OpenError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, key, refusal.Name)
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.Zero(t, w.attempts())
		require.Zero(t, time.Since(w.start))
	})
}

// A breaker that half-opens soon is waited for, even with a POST whose body cannot be sent twice: it was not sent once.
func TestOpenBreakerThatOpensSoon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{})
		g.Get(key).Trip(time.Second)
		w := newWire(answer(200))
		body := struct{ *sent }{&sent{Reader: payload()}}
		res, err := send(t.Context(), t, transport(t, w, client.Config{Breakers: g}), http.MethodPost, body)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, "payload", w.seen[0].body)
		require.GreaterOrEqual(t, w.seen[0].at, time.Second)
	})
}

// The failure that opens the breaker is not discarded in the hope of another attempt.
func TestBreakerIsAskedBeforeTheResponseIsDiscarded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{Consecutive: 2, OpenFor: time.Hour, MaxOpenFor: time.Hour})
		w := newWire(answer(503))
		tr := transport(t, w, client.Config{Breakers: g, Timeout: client.NoTimeout})
		res, err := get(t.Context(), t, tr)
		require.NoError(t, err)
		require.Equal(t, "Service Unavailable", text(t, res))
		require.Equal(t, 2, w.attempts())
	})
}

// A base that panics leaves no probe behind.
func TestPanicOfTheBase(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{Consecutive: 1, Probes: 1, ProbeLease: time.Hour})
		g.Get(key).Trip(time.Second)
		time.Sleep(2 * time.Second)
		tr := transport(t, newWire(func(*http.Request) (*http.Response, error) { panic("base") }, answer(200)), client.Config{Breakers: g})
		require.PanicsWithValue(t, "base", func() { _, _ = get(t.Context(), t, tr) })
		res, err := get(t.Context(), t, tr)
		require.NoError(t, err)
		text(t, res)
	})
}

func TestBreakerKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{Consecutive: 1})
		tr := transport(t, newWire(answer(500)), client.Config{
			Breakers: g, BreakerKey: func(r *http.Request) string { return "route of " + r.Method },
		})
		res, err := get(t.Context(), t, tr)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, breaker.Open, g.Get("route of GET").State())
		require.Equal(t, breaker.Closed, g.Get("route of PUT").State())
	})
}
