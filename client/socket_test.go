package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/retry"
)

// The tests of this file use real sockets: what they prove is about net/http, not about time.

// listen serves h and counts its connections.
func listen(t *testing.T, h http.Handler, configure func(*httptest.Server)) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	conns := new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	configure(s)
	t.Cleanup(s.Close)
	return s, conns
}

func plain(s *httptest.Server) { s.Start() }

func encrypted(s *httptest.Server) { s.StartTLS() }

func encrypted2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

// quick keeps real time short.
var quick = retry.Policy{BaseDelay: time.Nanosecond, MaxDelay: time.Nanosecond, Budget: retry.Unlimited}

// settled waits until as many goroutines are left as there were.
func settled(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("left running: %s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// An error page of 8 KiB is drained, so three attempts and twenty calls need one connection, and leave nothing behind.
func TestOneConnection(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("serve", func(t *testing.T) {
		page := bytes.Repeat([]byte("x"), 8<<10)
		var asked atomic.Int32
		s, conns := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1)%3 != 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = w.Write(page)
		}), plain)
		c, err := client.New(client.Config{Retry: quick, Breakers: breaker.Off()})
		require.NoError(t, err)
		defer c.CloseIdleConnections()
		for range 20 {
			res, err := c.Get(s.URL)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.Len(t, text(t, res), len(page))
		}
		require.EqualValues(t, 60, asked.Load())
		require.EqualValues(t, 1, conns.Load())
	})
	settled(t, before)
}

// A failure of one host does not close the connections of another.
func TestOtherHostsKeepTheirConnections(t *testing.T) {
	well, conns := listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), plain)
	ill, _ := listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), plain)
	c, err := client.New(client.Config{Retry: quick})
	require.NoError(t, err)
	defer c.CloseIdleConnections()
	for range 5 {
		res, err := c.Get(well.URL)
		require.NoError(t, err)
		text(t, res)
		_, err = c.Get(ill.URL)
		require.Error(t, err)
	}
	require.EqualValues(t, 1, conns.Load())
}

// A certificate that is not trusted will not be trusted the next time, however deep its error is wrapped.
func TestCertificate(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		s, conns := listen(t, http.NotFoundHandler(), encrypted)
		base := http.DefaultTransport.(*http.Transport).Clone()
		defer base.CloseIdleConnections()
		tr := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			res, err := base.RoundTrip(r)
			if err != nil && wrapped {
				err = fmt.Errorf("auth: %w", err)
			}
			return res, err
		}), client.Config{Retry: quick})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(r)
		require.Error(t, err)
		require.EqualValues(t, 1, conns.Load())
	}
}

// Nobody listens: nothing was sent, so that even a POST is tried again.
func TestConnectionRefused(t *testing.T) {
	s, _ := listen(t, http.NotFoundHandler(), plain)
	addr := s.URL
	s.Close()
	var attempts int
	c, err := client.New(client.Config{Retry: quick, OnAttempt: func(context.Context, client.Attempt) { attempts++ }})
	require.NoError(t, err)
	_, err = c.Post(addr, "text/plain", strings.NewReader("x"))
	require.Error(t, err)
	require.Equal(t, 3, attempts)
}

// Both versions of HTTP: the attempt that hangs is cut, the next one succeeds, and its long body is not cut.
func TestTimeoutsOverSockets(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*httptest.Server)
	}{{"HTTP/1", plain}, {"HTTP/2", encrypted2}} {
		t.Run(c.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			t.Run("serve", func(t *testing.T) {
				var asked atomic.Int32
				s, _ := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if asked.Add(1) == 1 {
						<-r.Context().Done()
						return
					}
					for range 5 {
						_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
						_ = http.NewResponseController(w).Flush()
						time.Sleep(20 * time.Millisecond) // of the server, which is no part of a bubble
					}
				}), c.start)
				tr := transport(t, s.Client().Transport, client.Config{Retry: quick, AttemptTimeout: 50 * time.Millisecond})
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
				require.NoError(t, err)
				res, err := tr.RoundTrip(r)
				require.NoError(t, err)
				require.Len(t, text(t, res), 50_000)
				require.EqualValues(t, 2, asked.Load())
				tr.CloseIdleConnections()
			})
			settled(t, before)
		})
	}
}

// Between two tiers, and through a proxy between them, a stream outlives every timeout.
func TestStreamBetweenTiers(t *testing.T) {
	pieces := inbound(t, client.InboundConfig{}, func(w http.ResponseWriter, r *http.Request) {
		for range 6 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(20 * time.Millisecond): // of the server, which is no part of a bubble
			case <-r.Context().Done():
				return
			}
		}
	})
	origin, _ := listen(t, pieces, plain)
	c := client.Config{AttemptTimeout: 50 * time.Millisecond}
	via := transport(t, origin.Client().Transport, c)
	u, err := url.Parse(origin.URL)
	require.NoError(t, err)
	forward := &httputil.ReverseProxy{Transport: via, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}
	proxy, _ := listen(t, inbound(t, client.InboundConfig{}, forward.ServeHTTP), plain)
	for _, s := range []*httptest.Server{origin, proxy} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		require.NoError(t, err)
		res, err := transport(t, s.Client().Transport, c).RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, "xxxxxx", text(t, res))
	}
}

func TestSilentBodyOverSockets(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*httptest.Server)
	}{{"HTTP/1", plain}, {"HTTP/2", encrypted2}} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}), c.start)
			tr := transport(t, s.Client().Transport, client.Config{BodyIdleTimeout: 20 * time.Millisecond})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			require.NoError(t, err)
			res, err := tr.RoundTrip(r)
			require.NoError(t, err)
			b, err := io.ReadAll(res.Body)
			require.Equal(t, "x", string(b))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, res.Body.Close())
		})
	}
}

// A server that refuses before it has read a large body, and a transport that is still writing the one while the next
// is begun: each attempt has a reader of its own.
func TestEarlyRefusalOfALargeBody(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 1<<20)
	var asked atomic.Int32
	s, _ := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != int64(len(payload)) {
			w.WriteHeader(http.StatusBadRequest)
		}
	}), plain)
	c, err := client.New(client.Config{Retry: quick, Breakers: breaker.Off()})
	require.NoError(t, err)
	defer c.CloseIdleConnections()
	for range 20 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL, bytes.NewReader(payload))
		require.NoError(t, err)
		res, err := c.Do(r)
		if err == nil { // a refusal that arrives while the body is written may come as an error of the write
			require.Equal(t, http.StatusOK, res.StatusCode)
			text(t, res)
		}
	}
}

// A body that comes from somewhere else, as in a proxy, and breaks there says nothing about the server. Whoever hangs up
// on a proxy in the middle of an upload would open its breaker for everybody.
func TestBrokenUpload(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*httptest.Server)
	}{{"HTTP/1", plain}, {"HTTP/2", encrypted2}} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) }), c.start)
			g := breakers(t, breaker.Config{Consecutive: 1})
			tr := transport(t, s.Client().Transport, client.Config{Breakers: g})
			source, sink := io.Pipe()
			go func() {
				_, _ = io.WriteString(sink, "half of it")
				sink.CloseWithError(fmt.Errorf("upstream: %w", errReset))
			}()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL, source)
			require.NoError(t, err)
			_, err = tr.RoundTrip(r)
			require.ErrorIs(t, err, errReset)
			require.Equal(t, breaker.Closed, g.Get(s.URL).State())
		})
	}
}

// Redirects are followed above this package: each hop is a call.
func TestRedirect(t *testing.T) {
	var paths []string
	s, _ := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		switch {
		case r.URL.Path == "/":
			http.Redirect(w, r, "/done", http.StatusSeeOther)
		case len(paths) == 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}), plain)
	c, err := client.New(client.Config{Retry: quick})
	require.NoError(t, err)
	defer c.CloseIdleConnections()
	res, err := c.Post(s.URL, "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "/done", res.Request.URL.Path)
	text(t, res)
	require.Equal(t, []string{"POST /", "GET /done", "GET /done"}, paths)
}

// net/http sends a request again by itself when a reused connection turns out to be dead. It is one attempt here.
func TestRetriesOfNetHTTPAreNotCounted(t *testing.T) {
	var asked, attempts atomic.Int32
	s, conns := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 2 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		}
	}), plain)
	c, err := client.New(client.Config{Retry: quick, OnAttempt: func(context.Context, client.Attempt) { attempts.Add(1) }})
	require.NoError(t, err)
	defer c.CloseIdleConnections()
	for range 2 {
		res, err := c.Get(s.URL)
		require.NoError(t, err)
		text(t, res)
	}
	require.EqualValues(t, 2, attempts.Load())
	require.EqualValues(t, 3, asked.Load())
	require.EqualValues(t, 2, conns.Load())
}

// The whole of http.Client is told a timeout as one.
func TestTimeoutThroughHTTPClient(t *testing.T) {
	s, _ := listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), plain)
	c, err := client.New(client.Config{Timeout: 30 * time.Millisecond})
	require.NoError(t, err)
	defer c.CloseIdleConnections()
	_, err = c.Get(s.URL)
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
