package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/retry"
)

// What is sent again: the method or a key allows it, the body can be sent again, and the outcome is worth it.
func TestSentAgain(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	pipe := func() io.Reader { return struct{ io.Reader }{payload()} } // no GetBody
	marked := retry.Idempotent(context.Background())
	for _, c := range []struct {
		rule     string
		ctx      context.Context
		method   string
		body     io.Reader
		header   []string
		then     step
		config   client.Config
		attempts int
	}{
		{rule: "GET", method: "GET", then: answer(503), attempts: 3},
		{rule: "HEAD", method: "HEAD", then: answer(503), attempts: 3},
		{rule: "PUT with a body that rewinds", method: "PUT", body: payload(), then: answer(503), attempts: 3},
		{rule: "DELETE", method: "DELETE", then: answer(503), attempts: 3},
		{rule: "PUT with a body that does not", method: "PUT", body: pipe(), then: answer(503), attempts: 1},
		{rule: "POST may have happened", method: "POST", body: payload(), then: answer(503), attempts: 1},
		{rule: "PATCH may have happened", method: "PATCH", body: payload(), then: fail(errReset), attempts: 1},
		{rule: "POST with a key", method: "POST", body: payload(), header: []string{"Idempotency-Key", "k"}, then: answer(503), attempts: 3},
		{rule: "POST with the other key", method: "POST", body: payload(), header: []string{"X-Idempotency-Key", "k"}, then: answer(503), attempts: 3},
		{rule: "POST that the caller marked", ctx: marked, method: "POST", body: payload(), then: answer(503), attempts: 3},
		{rule: "a mark does not rewind a body", ctx: marked, method: "POST", body: pipe(), then: answer(503), attempts: 1},
		{rule: "POST that was never sent", method: "POST", body: payload(), then: fail(refused), attempts: 3},
		{rule: "POST that was never sent, wrapped", method: "POST", body: payload(), then: fail(fmt.Errorf("via: %w", refused)), attempts: 3},
		{rule: "POST that was never sent, body gone", method: "POST", body: pipe(), then: fail(refused), attempts: 1},

		{rule: "408", method: "GET", then: answer(408), attempts: 3},
		{rule: "429", method: "GET", then: answer(429), attempts: 3},
		{rule: "502", method: "GET", then: answer(502), attempts: 3},
		{rule: "504", method: "GET", then: answer(504), attempts: 3},
		{rule: "200", method: "GET", then: answer(200), attempts: 1},
		{rule: "404", method: "GET", then: answer(404), attempts: 1},
		{rule: "409", method: "GET", then: answer(409), attempts: 1},
		{rule: "425", method: "GET", then: answer(425), attempts: 1},
		{rule: "500 is usually deterministic", method: "GET", then: answer(500), attempts: 1},
		{rule: "500 by option", method: "GET", then: answer(500), config: client.Config{RetryServerErrors: true}, attempts: 3},
		{rule: "501", method: "GET", then: answer(501), attempts: 1},
		{rule: "the server says no", method: "GET", then: answer(503, "Tandem-Retry", "no"), attempts: 1},
		{rule: "the server says no with a hint", method: "GET", then: answer(503, "Tandem-Retry", "no", "Retry-After", "1"), attempts: 1},

		{rule: "reset", method: "GET", then: fail(errReset), attempts: 3},
		{rule: "EOF", method: "GET", then: fail(io.EOF), attempts: 3},
		{rule: "the base says it is permanent", method: "GET", then: fail(retry.Permanent(errReset)), attempts: 1},
		{rule: "certificate", method: "GET", then: fail(fmt.Errorf("x: %w", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}})), attempts: 1},
		{rule: "host name of the certificate", method: "GET", then: fail(fmt.Errorf("x: %w", x509.HostnameError{Certificate: &x509.Certificate{}})), attempts: 1},
		{rule: "not TLS", method: "GET", then: fail(fmt.Errorf("x: %w", tls.RecordHeaderError{})), attempts: 1},
		{rule: "alert", method: "GET", then: fail(&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}), attempts: 1},
		{rule: "scheme", method: "GET", then: fail(http.ErrSchemeMismatch), attempts: 1},
		{rule: "no such name", method: "GET", then: fail(&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}), attempts: 1},
		{rule: "no name server just now", method: "GET", then: fail(&net.OpError{Op: "dial", Err: &net.DNSError{IsTemporary: true}}), attempts: 3},
		{rule: "a header that net/http refuses", method: "GET", header: []string{"X", "a\nb"}, then: fail(errReset), attempts: 1},
		{rule: "a method that net/http refuses", method: "GET", header: []string{"a b", "c"}, then: fail(errReset), attempts: 1},

		{rule: "never", method: "GET", then: answer(503), config: client.Config{Retry: retry.Never()}, attempts: 1},
		{rule: "five", method: "GET", then: answer(503), config: client.Config{Retry: retry.Policy{MaxAttempts: 5}}, attempts: 5},
		{rule: "the call overrides the client", ctx: retry.WithPolicy(context.Background(), retry.Never()), method: "GET", then: answer(503), attempts: 1},
		{rule: "Retryable forbids", method: "GET", then: answer(503), config: client.Config{Retry: retry.Policy{Retryable: func(err error) bool {
			status, ok := errors.AsType[*client.StatusError](err)
			return !ok || status.StatusCode() != 503
		}}}, attempts: 1},
		{rule: "Retryable does not allow", method: "POST", then: answer(503), config: client.Config{Retry: retry.Policy{Retryable: func(error) bool { return true }}}, attempts: 1},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWire(c.then)
				ctx := c.ctx
				if ctx == nil {
					ctx = t.Context()
				}
				res, err := send(ctx, t, transport(t, w, c.config), c.method, c.body, c.header...)
				if err == nil {
					text(t, res)
				}
				require.Equal(t, c.attempts, w.attempts(), "attempts")
				require.Zero(t, w.left(), "bodies left open")
				for _, s := range w.seen {
					require.Equal(t, w.seen[0].body, s.body, "every attempt sends the whole body")
					require.Error(t, s.ctx.Err(), "every attempt has ended")
				}
			})
		})
	}
}

// net/http counts a key as there even if its slice is empty and nothing is sent: golang/go#19943.
func TestKeyWithoutValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(503))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, payload())
		require.NoError(t, err)
		r.Header["X-Idempotency-Key"] = nil
		res, err := transport(t, w, client.Config{}).RoundTrip(r)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, 3, w.attempts())
	})
}

// An http.RoundTripper need not know other schemes; what net/http refuses has no type.
func TestSchemeIsNotRetried(t *testing.T) {
	for _, addr := range []string{"gopher://service.test/", "http:///nohost"} {
		w := 0
		tr := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			w++
			return http.DefaultTransport.RoundTrip(r)
		}), client.Config{})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, addr, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(r)
		require.Error(t, err)
		require.Equal(t, 1, w)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// On giving up, the last response is the caller's, with its body.
func TestLastResponse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(502), answer(502), answer(503, "X", "last"))
		res, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.NoError(t, err)
		require.Equal(t, 503, res.StatusCode)
		require.Equal(t, "last", res.Header.Get("X"))
		require.Equal(t, 1, w.left(), "bodies left open")
		require.Equal(t, "Service Unavailable", text(t, res))
		require.Zero(t, w.left())
	})
}

func TestRetryAfter(t *testing.T) {
	const sent = "Sat, 01 Jan 2000 00:00:10 GMT"
	for _, c := range []struct {
		rule     string
		timeout  time.Duration
		header   []string
		least    time.Duration // of the first wait
		attempts int
	}{
		{rule: "seconds are a floor", header: []string{"Retry-After", "2"}, least: 2 * time.Second, attempts: 3},
		{rule: "a date counts from the server's clock", header: []string{"Retry-After", sent, "Date", "Sat, 01 Jan 2000 00:00:08 GMT"}, least: 2 * time.Second, attempts: 3},
		{rule: "what outlives the deadline ends the call at once", header: []string{"Retry-After", "3600"}, attempts: 1},
		{rule: "what overflows is long", header: []string{"Retry-After", "99999999999999999999"}, attempts: 1},
		{rule: "without a deadline MaxHint decides", timeout: client.NoTimeout, header: []string{"Retry-After", "31"}, attempts: 1},
		{rule: "without a deadline MaxHint allows", timeout: client.NoTimeout, header: []string{"Retry-After", "29"}, least: 29 * time.Second, attempts: 3},
		{rule: "nonsense is ignored", header: []string{"Retry-After", "-5"}, attempts: 3},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWire(answer(429, c.header...))
				start := time.Now()
				res, err := get(t.Context(), t, transport(t, w, client.Config{Timeout: c.timeout}))
				require.NoError(t, err)
				require.Equal(t, "Too Many Requests", text(t, res))
				require.Equal(t, c.attempts, w.attempts())
				if c.attempts == 1 {
					require.Zero(t, time.Since(start))
					return
				}
				require.GreaterOrEqual(t, w.seen[1].at, c.least)
				require.LessOrEqual(t, w.seen[1].at, c.least+c.least/10+50*time.Millisecond)
			})
		})
	}
}

// The budget is that of the host, is asked before the wait, and leaves the response to the caller.
func TestBudgetPerHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(503))
		tr := transport(t, w, client.Config{Breakers: breaker.Off()})
		for range 100 {
			res, err := get(t.Context(), t, tr)
			require.NoError(t, err)
			text(t, res)
		}
		require.Less(t, w.attempts(), 170, "100 calls, 20 %, a full floor of 30 and what time gave")
		before, start := w.attempts(), time.Now()
		refused := func() bool { // until the floor, refilled by time, is empty again
			res, err := get(t.Context(), t, tr)
			require.NoError(t, err)
			text(t, res)
			return time.Since(start) == 0
		}
		for !refused() {
			start, before = time.Now(), w.attempts()
		}
		require.Equal(t, before+1, w.attempts())

		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://other.test/", nil)
		require.NoError(t, err)
		before = w.attempts()
		res, err := tr.RoundTrip(r)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, before+3, w.attempts(), "another host has its own")
	})
}

// A first attempt of one call and its failure never say anything about the request: it is the caller's.
func TestRequestIsNotChanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(503), answer(200))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, payload())
		require.NoError(t, err)
		r.Header.Set("X", "y")
		body, header, before := r.Body, r.Header, r.Header.Clone()
		res, err := transport(t, w, client.Config{}).RoundTrip(r)
		require.NoError(t, err)
		require.Same(t, r, res.Request, "the response belongs to the caller's request")
		text(t, res)
		require.Equal(t, before, r.Header)
		require.Equal(t, before, header)
		require.Equal(t, body, r.Body)
		require.Equal(t, t.Context(), r.Context())
	})
}

// Whatever happens, the body of the request is closed, and so is every one that GetBody gave.
func TestRequestBodyIsClosed(t *testing.T) {
	open := breakers(t, breaker.Config{Consecutive: 1})
	open.Get("http://service.test").Trip(time.Hour)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		rule    string
		ctx     context.Context
		config  client.Config
		then    step
		getBody error
		bodies  int
	}{
		{rule: "success", then: answer(200), bodies: 1},
		{rule: "refusal of the breaker", config: client.Config{Breakers: open}, then: answer(200), bodies: 1},
		{rule: "context ended before", ctx: ended, then: answer(200), bodies: 1},
		{rule: "attempts", then: answer(503), bodies: 3},
		{rule: "error", then: fail(errReset), bodies: 3},
		{rule: "GetBody fails", then: answer(503), getBody: io.ErrUnexpectedEOF, bodies: 1},
		{rule: "context ends in the wait", ctx: nil, config: client.Config{Timeout: time.Hour}, then: answer(503, "Retry-After", "1800"), bodies: 2},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx := c.ctx
				if ctx == nil {
					ctx = t.Context()
				}
				if c.bodies == 2 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(time.Minute, cancel)
				}
				bodies := []*sent{{Reader: payload()}}
				r, err := http.NewRequestWithContext(ctx, http.MethodPut, target, bodies[0])
				require.NoError(t, err)
				r.GetBody = func() (io.ReadCloser, error) {
					if c.getBody != nil {
						return nil, c.getBody
					}
					next := &sent{Reader: payload()}
					bodies = append(bodies, next)
					return next, nil
				}
				res, err := transport(t, newWire(c.then), c.config).RoundTrip(r)
				if err == nil {
					text(t, res)
				}
				require.Len(t, bodies, c.bodies)
				for i, b := range bodies {
					require.Equal(t, 1, b.closed, "closed, body %d", i+1)
				}
			})
		})
	}
}

// GetBody is asked before the response is discarded.
func TestGetBodyFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, then := range []step{answer(503), fail(errReset)} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, payload())
			require.NoError(t, err)
			r.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
			res, err := transport(t, newWire(then), client.Config{}).RoundTrip(r)
			if err == nil {
				require.Equal(t, "Service Unavailable", text(t, res))
				continue
			}
			require.ErrorIs(t, err, errReset)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	})
}

// A body of unknown origin is not read into memory: 64 MiB go through a client that could have kept them.
func TestNoHiddenCopy(t *testing.T) {
	var most int
	tr := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		n, err := io.Copy(io.Discard, r.Body)
		most = int(n)
		r.Body.Close()
		if err != nil {
			return nil, err
		}
		return answer(503)(r)
	}), client.Config{})
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodPut, target, io.LimitReader(zeros{}, 64<<20))
			if err != nil {
				b.Fatal(err)
			}
			res, err := tr.RoundTrip(r)
			if err != nil {
				b.Fatal(err)
			}
			res.Body.Close()
		}
	}).AllocedBytesPerOp()
	require.Equal(t, 64<<20, most)
	require.Less(t, allocated, int64(1<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The marks are for the first tandem layer: what is below it, and the next call, do not see them.
func TestMarksAreTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner := newWire(answer(503))
		below := transport(t, inner, client.Config{Retry: retry.Policy{MaxAttempts: 2}})
		outer := transport(t, below, client.Config{})
		ctx := retry.WithPolicy(retry.Idempotent(t.Context()), retry.Never())
		res, err := send(ctx, t, outer, http.MethodPost, payload())
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, 1, inner.attempts(), "below, the POST is not marked")
		res, err = get(ctx, t, outer)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, 3, inner.attempts(), "below, two attempts; above, one")
	})
}

// Below, an attempt can be told from the others.
func TestAttemptInContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var numbers []int
		w := newWire(func(r *http.Request) (*http.Response, error) {
			numbers = append(numbers, retry.Attempt(r.Context()))
			return nil, errReset
		})
		_, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.ErrorIs(t, err, errReset)
		require.Equal(t, []int{1, 2, 3}, numbers)
	})
}

func TestErrors(t *testing.T) {
	plain := client.Config{}
	for _, c := range []struct {
		rule     string
		config   client.Config
		method   string
		then     step
		attempts int // zero: not wrapped
		reason   retry.Reason
		is       error
	}{
		{rule: "one attempt speaks for itself", config: plain, method: "POST", then: fail(errReset), is: errReset},
		{rule: "several are told", config: plain, method: "GET", then: fail(errReset), attempts: 3, reason: retry.Attempts, is: errReset},
		{rule: "an attempt timeout is a timeout", config: client.Config{Timeout: client.NoTimeout}, method: "POST", then: silence, is: context.DeadlineExceeded},
		{rule: "three attempt timeouts are one", config: client.Config{Timeout: client.NoTimeout}, method: "GET", then: silence, attempts: 3, reason: retry.Attempts, is: context.DeadlineExceeded},
		{rule: "the timeout of the call is one", config: client.Config{AttemptTimeout: client.NoTimeout}, method: "POST", then: silence, is: context.DeadlineExceeded},
		{rule: "a deadline too close is told", config: client.Config{Timeout: 10 * time.Millisecond, Retry: retry.Policy{Backoff: hourly}}, method: "GET", then: fail(errReset), attempts: 1, reason: retry.Deadline, is: errReset},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				hc, err := client.New(func() client.Config { c.config.Base = newWire(c.then); return c.config }())
				require.NoError(t, err)
				require.Zero(t, hc.Timeout)
				r, err := http.NewRequestWithContext(t.Context(), c.method, "http://service.test/", nil)
				require.NoError(t, err)
				_, err = hc.Do(r)
				require.ErrorIs(t, err, c.is)
				wrapped, ok := errors.AsType[*retry.Error](err)
				require.Equal(t, c.attempts > 0, ok, "wrapped: %v", err)
				if ok {
					require.Equal(t, c.attempts, wrapped.Attempts)
					require.Equal(t, c.reason, wrapped.Reason)
				}
				var timeout interface{ Timeout() bool }
				require.ErrorAs(t, err, &timeout) // that is *url.Error, which asks the error in it
				require.Equal(t, errors.Is(c.is, context.DeadlineExceeded), timeout.Timeout())
			})
		})
	}
}

type hours struct{}

func (hours) NextBackOff() time.Duration { return time.Hour }
func (hours) Reset()                     {}

func hourly() retry.Intervals { return hours{} }

// What ends the wait does not hide why there was one.
func TestCancelledInTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		w := newWire(answer(503, "Retry-After", "2"))
		_, err := get(ctx, t, transport(t, w, client.Config{}))
		require.ErrorIs(t, err, context.Canceled)
		status, ok := errors.AsType[*client.StatusError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, 503, status.Status)
		require.Zero(t, w.left())
		require.Equal(t, 500*time.Millisecond, time.Since(w.start))
	})
}

// A caller who went away gets the error of the context, and no other attempt.
func TestCancelledInTheAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errReset) })
		w := newWire(silence)
		_, err := get(ctx, t, transport(t, w, client.Config{}))
		require.ErrorIs(t, err, errReset, "the cause, as net/http tells it")
		require.Equal(t, 1, w.attempts())
	})
}

// http.Client with a Timeout of its own still cancels through Request.Cancel. That is the caller's doing: there is no
// other attempt, and nothing is held against the server.
func TestCancelOfTheRequest(t *testing.T) {
	canceled := errors.New("net/http: request canceled")
	bubble(t, func(t *testing.T) {
		g := breakers(t, breaker.Config{Consecutive: 1})
		w := newWire(func(r *http.Request) (*http.Response, error) {
			//lint:ignore SA1019 http.Client uses it still
			<-r.Cancel //nolint:staticcheck // as above
			return nil, canceled
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		require.NoError(t, err)
		cancel := make(chan struct{})
		//lint:ignore SA1019 http.Client uses it still
		r.Cancel = cancel //nolint:staticcheck // as above
		time.AfterFunc(time.Second, func() { close(cancel) })
		tr := transport(t, w, client.Config{Breakers: g, AttemptTimeout: time.Minute})
		_, err = tr.RoundTrip(r)
		require.ErrorIs(t, err, canceled)
		require.Equal(t, 1, w.attempts())
		require.Equal(t, breaker.Closed, g.Get(key).State())
		_, err = tr.RoundTrip(r)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, w.attempts(), "it was over before it began")
	})
}

// What the caller's own code does in the middle of a call leaves nothing open.
func TestPanicOfTheCaller(t *testing.T) {
	fault := func() { panic("the caller's") }
	for rule, config := range map[string]client.Config{
		"Retryable":  {Retry: retry.Policy{Retryable: func(error) bool { fault(); return true }}},
		"Backoff":    {Retry: retry.Policy{Backoff: func() retry.Intervals { fault(); return nil }}},
		"BreakerKey": {BreakerKey: func(*http.Request) string { fault(); return "" }},
	} {
		t.Run(rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, body := newWire(answer(503)), &sent{Reader: payload()}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, body)
				require.NoError(t, err)
				r.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
				require.Panics(t, func() { _, _ = transport(t, w, config).RoundTrip(r) })
				require.Zero(t, w.left(), "bodies left open")
				require.Equal(t, 1, body.closed)
				for _, s := range w.seen {
					require.Error(t, s.ctx.Err(), "every attempt has ended")
				}
			})
		})
	}
}

// An error of another client below says that it has dialled in vain, but not the first time.
func TestUnsentOnlyIfNothingWasSentBefore(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errReset}
	for attempts, want := range map[int]int{1: 3, 2: 1} {
		bubble(t, func(t *testing.T) {
			w := newWire(fail(&retry.Error{Attempts: attempts, Err: refused}))
			_, err := send(t.Context(), t, transport(t, w, client.Config{}), http.MethodPost, nil)
			require.ErrorIs(t, err, refused)
			require.Equal(t, want, w.attempts())
		})
	}
}

// A base that breaks its contract is no reason to panic.
func TestBaseReturnsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(fail(nil))
		_, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.Error(t, err)
		require.Equal(t, 1, w.attempts())
	})
}

func TestConfigIsValidated(t *testing.T) {
	_, err := client.New(client.Config{
		Timeout: -1, AttemptTimeout: -1, BodyIdleTimeout: -1, Headers: 7, Retry: retry.Policy{MaxAttempts: -1},
	})
	for _, fault := range []string{"Timeout", "AttemptTimeout", "BodyIdleTimeout", "Headers", "MaxAttempts"} {
		require.ErrorContains(t, err, fault)
	}
}

// Any number of goroutines may use one client.
func TestConcurrentCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(503), answer(200))
		tr := transport(t, w, client.Config{})
		done := make(chan error)
		for range 100 {
			go func() {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, bytes.NewReader([]byte("x")))
				if err != nil {
					done <- err
					return
				}
				res, err := tr.RoundTrip(r)
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				done <- err
			}()
		}
		for range 100 {
			require.NoError(t, <-done)
		}
		require.Zero(t, w.left())
	})
}
