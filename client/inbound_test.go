package client_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/retry"
)

func inbound(t *testing.T, c client.InboundConfig, h http.HandlerFunc) http.Handler {
	t.Helper()
	in, err := client.NewInbound(c)
	require.NoError(t, err)
	return in(h)
}

// serve answers a request with these headers, in pairs.
func serve(t *testing.T, h http.Handler, pairs ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestInboundDeadline(t *testing.T) {
	const ours, mesh = "Tandem-Timeout-Ms", "X-Envoy-Expected-Rq-Timeout-Ms"
	for _, c := range []struct {
		rule      string
		most      time.Duration
		header    []string
		want      time.Duration // zero: no deadline
		malformed []string
	}{
		{rule: "none"},
		{rule: "ours", header: []string{ours, "250"}, want: 250 * time.Millisecond},
		{rule: "the mesh's", header: []string{mesh, "250"}, want: 250 * time.Millisecond},
		{rule: "the shorter", header: []string{mesh, "250", ours, "200"}, want: 200 * time.Millisecond},
		{rule: "MaxTimeout", most: time.Second, want: time.Second},
		{rule: "MaxTimeout is shorter", most: time.Second, header: []string{ours, "2000"}, want: time.Second},
		{rule: "MaxTimeout is longer", most: time.Second, header: []string{ours, "500"}, want: 500 * time.Millisecond},
		{rule: "zero", header: []string{ours, "0"}, malformed: []string{ours}},
		{rule: "a sign", header: []string{ours, "-1"}, malformed: []string{ours}},
		{rule: "a unit", header: []string{ours, "1s"}, malformed: []string{ours}},
		{rule: "twice", header: []string{ours, "100", ours, "200"}, malformed: []string{ours}},
		{rule: "one of two is malformed", header: []string{ours, "soon", mesh, "250"}, want: 250 * time.Millisecond, malformed: []string{ours}},
		{rule: "attempts too", header: []string{"Tandem-Attempt", "x", "X-Envoy-Attempt-Count", "0"}, malformed: []string{"Tandem-Attempt", "X-Envoy-Attempt-Count"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var malformed []string
				h := inbound(t, client.InboundConfig{
					MaxTimeout: c.most,
					OnMalformed: func(_ context.Context, e client.Malformed) {
						malformed = append(malformed, e.Header)
						panic("a hook decides nothing")
					},
				}, func(w http.ResponseWriter, r *http.Request) {
					deadline, ok := r.Context().Deadline()
					require.Equal(t, c.want > 0, ok)
					if ok {
						require.Equal(t, c.want, time.Until(deadline))
					}
				})
				require.Equal(t, http.StatusOK, serve(t, h, c.header...).Code)
				require.Equal(t, c.malformed, malformed)
			})
		})
	}
}

// A deadline that a middleware around this one has set is not made longer.
func TestInboundOnlyShortens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := inbound(t, client.InboundConfig{}, func(_ http.ResponseWriter, r *http.Request) {
			deadline, _ := r.Context().Deadline()
			require.Equal(t, time.Second, time.Until(deadline))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		r.Header.Set("Tandem-Timeout-Ms", "5000")
		h.ServeHTTP(httptest.NewRecorder(), r)
	})
}

// The deadline is for the header. What comes after it, such as a stream, goes on.
func TestInboundDeadlineEndsWithTheHeader(t *testing.T) {
	for rule, answer := range map[string]func(w http.ResponseWriter){
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
		"WriteString": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") },
		"ReadFrom":    func(w http.ResponseWriter) { _, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x")) },
		"Flush":       func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"101":         func(w http.ResponseWriter) { w.WriteHeader(http.StatusSwitchingProtocols) },
		"Hijack":      func(w http.ResponseWriter) { _, _, _ = w.(http.Hijacker).Hijack() },
	} {
		t.Run(rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := inbound(t, client.InboundConfig{MaxTimeout: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					ctx, cancel := context.WithCancel(r.Context())
					defer cancel()
					w.WriteHeader(http.StatusProcessing) // not the final one
					time.Sleep(900 * time.Millisecond)
					_, ok := r.Context().Deadline()
					require.True(t, ok)
					answer(w)
					time.Sleep(time.Hour)
					require.NoError(t, ctx.Err())
					_, ok = ctx.Deadline()
					require.False(t, ok, "calls made from now on know of none")
				})
				h.ServeHTTP(hijackable{httptest.NewRecorder()}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			})
		})
	}
}

type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

// Until then it is a deadline like any other, and what comes too late does not take it back.
func TestInboundDeadlinePasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := inbound(t, client.InboundConfig{}, func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			child, cancel := context.WithCancel(r.Context())
			defer cancel()
			<-child.Done()
			require.Equal(t, 250*time.Millisecond, time.Since(start))
			require.ErrorIs(t, r.Context().Err(), context.DeadlineExceeded)
			require.ErrorIs(t, context.Cause(child), context.DeadlineExceeded)
			w.WriteHeader(http.StatusGatewayTimeout)
			require.ErrorIs(t, r.Context().Err(), context.DeadlineExceeded)
		})
		require.Equal(t, http.StatusGatewayTimeout, serve(t, h, "Tandem-Timeout-Ms", "250").Code)
	})
}

// A caller who goes away is not a deadline, before the header as after it.
func TestInboundCancelled(t *testing.T) {
	for _, header := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			h := inbound(t, client.InboundConfig{MaxTimeout: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
				if header {
					w.WriteHeader(http.StatusOK)
				}
				<-r.Context().Done()
				require.ErrorIs(t, r.Context().Err(), context.Canceled)
			})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		})
	}
}

func TestInboundExpired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := inbound(t, client.InboundConfig{}, func(http.ResponseWriter, *http.Request) { t.Error("work began") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(2 * time.Second)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		require.Equal(t, http.StatusGatewayTimeout, w.Code)
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		require.JSONEq(t, `{"title":"Gateway Timeout","status":504,"detail":"the caller's deadline passed before work began"}`, w.Body.String())
	})
}

func TestInboundMarksRefusals(t *testing.T) {
	for _, c := range []struct {
		rule string
		do   http.HandlerFunc
		want string
	}{
		{"a wish", func(w http.ResponseWriter, r *http.Request) { client.NoRetry(r.Context()); w.WriteHeader(503) }, "no"},
		{"throttled", func(w http.ResponseWriter, r *http.Request) { client.NoRetry(r.Context()); w.WriteHeader(429) }, "no"},
		{"no wish", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, ""},
		{"success", func(w http.ResponseWriter, r *http.Request) { client.NoRetry(r.Context()); w.WriteHeader(200) }, ""},
		{"success by writing", func(w http.ResponseWriter, r *http.Request) {
			client.NoRetry(r.Context())
			_, _ = io.WriteString(w, "x")
		}, ""},
		{"not found", func(w http.ResponseWriter, r *http.Request) { client.NoRetry(r.Context()); w.WriteHeader(404) }, ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			w := serve(t, inbound(t, client.InboundConfig{}, c.do))
			require.Equal(t, c.want, w.Result().Header.Get("Tandem-Retry"))
		})
	}
	client.NoRetry(t.Context()) // outside of any: nothing
}

// tier is a service in memory: its handler sees what went over the wire and nothing else of its caller's context.
func tier(h http.Handler) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		defer context.AfterFunc(r.Context(), cancel)()
		in := httptest.NewRequestWithContext(ctx, r.Method, "/", r.Body)
		in.Header = r.Header.Clone()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, in)
		if r.Context().Err() != nil {
			return nil, context.Cause(r.Context())
		}
		return w.Result(), nil
	})
}

// forward is a handler that calls the next tier and answers what it answers.
func forward(t *testing.T, next http.RoundTripper) http.Handler {
	return inbound(t, client.InboundConfig{}, func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Error(err)
			return
		}
		res, err := next.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		res.Body.Close()
		w.WriteHeader(res.StatusCode)
	})
}

// A request that is itself a retry is not retried further down, but for what was never sent.
func TestChainStop(t *testing.T) {
	for _, c := range []struct {
		rule     string
		header   []string
		then     step
		attempts int
	}{
		{"first", nil, answer(503), 3},
		{"retried by tandem", []string{"Tandem-Attempt", "2"}, answer(503), 1},
		{"retried by the mesh", []string{"X-Envoy-Attempt-Count", "2"}, answer(503), 1},
		{"the mesh's first", []string{"X-Envoy-Attempt-Count", "1"}, answer(503), 3},
		{"never sent", []string{"Tandem-Attempt", "2"}, fail(&net.OpError{Op: "dial", Err: errReset}), 3},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWire(c.then)
				serve(t, forward(t, transport(t, w, client.Config{})), c.header...)
				require.Equal(t, c.attempts, w.attempts())
			})
		})
	}
}

// A tier whose own retries have ended says so by itself, its caller does not begin anew, and its caller's breaker does
// not hold it against it.
func TestGaveUp(t *testing.T) {
	for _, c := range []struct {
		rule   string
		then   step
		config client.Config
		want   string
	}{
		{"attempts", answer(503), client.Config{}, "no"},
		{"a hint beyond the deadline", answer(503, "Retry-After", "60"), client.Config{}, "no"},
		{"told so itself", answer(503, "Tandem-Retry", "no"), client.Config{}, "no"},
		{"no retries of its own", answer(503), client.Config{Retry: retry.Never()}, ""},
		{"told so with what is not retried", answer(500, "Tandem-Retry", "no"), client.Config{}, "no"},
		{"success", answer(200), client.Config{}, ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := serve(t, forward(t, transport(t, newWire(c.then), c.config)))
				require.Equal(t, c.want, w.Result().Header.Get("Tandem-Retry"))
			})
		})
	}
	bubble(t, func(t *testing.T) {
		last := newWire(answer(503))
		g := breakers(t, breaker.Config{Consecutive: 1})
		edge := transport(t, tier(forward(t, transport(t, last, client.Config{}))), client.Config{Breakers: g})
		res, err := get(t.Context(), t, edge)
		require.NoError(t, err)
		require.Equal(t, 503, res.StatusCode)
		text(t, res)
		require.Equal(t, 3, last.attempts())
		require.Equal(t, breaker.Closed, g.Get(key).State())
	})
}

// Four tiers in an outage do not multiply each other's attempts: the last one sees first attempts and a fifth more,
// beside the floor of the budget. Naive loops of three would send 27 times as many.
func TestNoAmplification(t *testing.T) {
	bubble(t, func(t *testing.T) {
		last := newWire(answer(503))
		var chain http.RoundTripper = last
		for range 3 {
			chain = tier(forward(t, transport(t, chain, client.Config{Breakers: breaker.Off()})))
		}
		edge := transport(t, chain, client.Config{Breakers: breaker.Off()})
		const calls = 2000
		start := time.Now()
		for range calls {
			res, err := get(t.Context(), t, edge)
			require.NoError(t, err)
			res.Body.Close()
		}
		floor := 30 + 3*time.Since(start).Seconds()
		require.LessOrEqual(t, float64(last.attempts()), 1.2*calls+floor)
		require.Greater(t, last.attempts(), calls)
	})
}

// The remaining time shrinks from tier to tier, and an attempt further out leaves room for two further in.
func TestDeadlineTravels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		last := newWire(silence)
		var chain http.RoundTripper = last
		for range 2 {
			chain = tier(forward(t, transport(t, chain, client.Config{})))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		res, err := get(ctx, t, transport(t, chain, client.Config{}))
		if err == nil {
			res.Body.Close()
		}
		require.Equal(t, "500", last.seen[0].header.Get("Tandem-Timeout-Ms"))
		require.LessOrEqual(t, time.Since(last.start), 4*time.Second)
	})
}

// What a handler can do with the server's own writer it can do with ours.
func TestWriterKeepsItsPowers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("x", 100_000)), 0o600))
	mux := http.NewServeMux()
	mux.HandleFunc("/flush", func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "flushed")
	})
	mux.HandleFunc("/control", func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex(), c.Flush()); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/hint", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		client.NoRetry(r.Context())
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, w.Header().Get("Tandem-Retry"))
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhijacked")
		_ = rw.Flush()
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("no io.ReaderFrom")
		}
		http.ServeFile(w, r, file)
	})
	server := httptest.NewServer(inbound(t, client.InboundConfig{}, mux.ServeHTTP))
	defer server.Close()
	for path, want := range map[string]string{"/flush": "flushed", "/control": "", "/hint": "no", "/hijack": "hijacked", "/file": strings.Repeat("x", 100_000)} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		require.NoError(t, err)
		res, err := server.Client().Do(r)
		require.NoError(t, err, path)
		require.Equal(t, want, text(t, res), path)
	}
}

// And what it cannot do with that one, ours does not promise.
func TestWriterPromisesNothing(t *testing.T) {
	type bare struct{ http.ResponseWriter }
	type flushes struct {
		http.ResponseWriter
		http.Flusher
	}
	type hijacks struct {
		http.ResponseWriter
		http.Hijacker
	}
	for _, c := range []struct {
		w             http.ResponseWriter
		flush, hijack bool
	}{
		{bare{httptest.NewRecorder()}, false, false},
		{flushes{ResponseWriter: httptest.NewRecorder()}, true, false},
		{hijacks{httptest.NewRecorder(), hijacker{}}, false, true},
	} {
		h := inbound(t, client.InboundConfig{}, func(w http.ResponseWriter, _ *http.Request) {
			_, flush := w.(http.Flusher)
			_, hijack := w.(http.Hijacker)
			require.Equal(t, c.flush, flush)
			require.Equal(t, c.hijack, hijack)
		})
		h.ServeHTTP(c.w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	}
}

type hijacker struct{}

func (hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }

func TestInboundConfigIsValidated(t *testing.T) {
	_, err := client.NewInbound(client.InboundConfig{MaxTimeout: -1})
	require.ErrorContains(t, err, "MaxTimeout")
}
