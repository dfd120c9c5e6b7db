package httpguard_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/httpguard"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/memstore"
)

// A site is one guarded handler. Its requests are from tenant "a" unless they say otherwise.
type site struct {
	testing.TB
	store   idempotency.Store
	config  httpguard.Config
	handler http.HandlerFunc
	runs    int
	guarded http.Handler
}

func newSite(tb testing.TB, handler http.HandlerFunc) *site {
	tb.Helper()
	mem, err := memstore.New(memstore.Config{})
	require.NoError(tb, err)
	return &site{TB: tb, store: mem, handler: handler}
}

func tenant(r *http.Request) (string, error) {
	switch who := r.Header.Get("Tenant"); who {
	case "":
		return "a", nil
	case "nobody":
		return "", errors.New("nobody")
	default:
		return who, nil
	}
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.Helper()
	if s.guarded == nil {
		guard, err := httpguard.New(s.store, tenant, s.config)
		require.NoError(s, err)
		s.guarded = guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.runs++; s.handler(w, r) }))
	}
	s.guarded.ServeHTTP(w, r)
}

func post(key, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	return r
}

func (s *site) do(r *http.Request) *httptest.ResponseRecorder {
	s.Helper()
	w := httptest.NewRecorder()
	s.serve(w, r)
	return w
}

func (s *site) want(w *httptest.ResponseRecorder, status int, body string) {
	s.Helper()
	if w.Code != status || w.Body.String() != body {
		s.Fatalf("got %d %q, want %d %q", w.Code, w.Body, status, body)
	}
}

func (s *site) problem(w *httptest.ResponseRecorder, status int, heading string) {
	s.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	require.NoError(s, json.Unmarshal(w.Body.Bytes(), &p), w.Body.String())
	require.Equal(s, status, w.Code)
	require.Equal(s, status, p.Status)
	require.Equal(s, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(s, "https://pkg.go.dev/github.com/tandemgo/tandem/idempotency/httpguard#hdr-"+heading, p.Type)
	require.NotEmpty(s, p.Title)
	require.NotEmpty(s, p.Detail)
	require.Empty(s, w.Header().Get("Idempotent-Replayed"))
}

// over sends a request over a real connection.
func (s *site) over(server *httptest.Server, key, body string) (*http.Response, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodPost, server.URL+"/orders", strings.NewReader(body))
	require.NoError(s, err)
	r.Header.Set("Idempotency-Key", key)
	resp, err := server.Client().Do(r)
	require.NoError(s, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	require.NoError(s, resp.Body.Close())
	return resp, string(b)
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestReplaysTheFirstAnswer(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		for name, value := range map[string]string{
			"Content-Type": "text/x-order", "Location": "/orders/7", "Etag": `"7"`, "X-Kept": "kept", "X-Request-Id": "1",
			"Set-Cookie": "session=secret", "Date": "then", "Connection": "close", "Access-Control-Allow-Origin": "*", "Retry-After": "9",
		} {
			w.Header().Set(name, value)
		}
		w.Header().Add("Link", "<a>")
		w.Header().Add("Link", "<b>")
		w.WriteHeader(http.StatusCreated)
		w.Header().Set("X-Kept", "too late")
		_, _ = w.Write(append([]byte("made of "), body...))
	})
	s.config.Headers = []string{"x-kept"}
	first := s.do(post("k", "eggs"))
	s.want(first, 201, "made of eggs")
	require.Equal(t, "session=secret", first.Header().Get("Set-Cookie"))
	require.Equal(t, "kept", first.Header().Get("X-Kept"), "headers end with WriteHeader")
	require.Empty(t, first.Header().Get("Idempotent-Replayed"))
	for range 2 {
		again := s.do(post("k", "eggs"))
		s.want(again, 201, "made of eggs")
		require.Equal(t, http.Header{
			"Content-Type": {"text/x-order"}, "Location": {"/orders/7"}, "Etag": {`"7"`}, "X-Kept": {"kept"},
			"Link": {"<a>", "<b>"}, "Idempotent-Replayed": {"true"},
		}, again.Header())
	}
	require.Equal(t, 1, s.runs)
}

func TestNeverMeet(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	as := func(r *http.Request, tenant string) *http.Request { r.Header.Set("Tenant", tenant); return r }
	at := func(method, path string) *http.Request {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Idempotency-Key", "k")
		return r
	}
	requests := []*http.Request{
		as(at("POST", "/orders"), "b"), as(at("POST", "/orders"), "B"), as(at("POST", "/orders"), `a" POST /orders "`),
		as(at("POST", "/orders"), strings.Repeat("x", 600)), as(at("POST", "/orders"), strings.Repeat("x", 601)),
		at("POST", "/orders"), at("PATCH", "/orders"), at("POST", "/orders/1"), at("POST", "/orders%2F1"),
		at("POST", "/"+strings.Repeat("x", 3000)), at("POST", "/"+strings.Repeat("x", 3001)),
	}
	for i, r := range requests {
		s.want(s.do(r), 200, "ok")
		require.Equal(t, i+1, s.runs, "request %d met another", i)
	}
}

// The path is that of the request, whatever routers around the guard have made of it.
func TestRoutesNeverMeet(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	guarded := http.HandlerFunc(s.serve)
	mux := http.NewServeMux()
	for _, prefix := range []string{"/a", "/b"} {
		mux.Handle(prefix+"/", http.StripPrefix(prefix, guarded))
	}
	for i, target := range []string{"/a/pay", "/b/pay", "/a/pay/", "/a/p%61y"} {
		for range 2 {
			r := httptest.NewRequest(http.MethodPost, target, nil)
			r.Header.Set("Idempotency-Key", "k")
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			s.want(w, 200, "ok")
			require.Equal(t, i+1, s.runs, target)
		}
	}
	absolute := httptest.NewRequest(http.MethodPost, "http://example.com/a/pay?", nil)
	absolute.Header.Set("Idempotency-Key", "k")
	mux.ServeHTTP(httptest.NewRecorder(), absolute)
	require.Equal(t, 4, s.runs, "the same path, as a proxy is asked for it")

	bare, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com/bare", nil) // of no server
	require.NoError(t, err)
	bare.Header.Set("Idempotency-Key", "k")
	s.want(s.do(bare), 200, "ok")
	c, err := s.store.Begin(t.Context(), idempotency.Key{Scope: `"a" POST /bare`, ID: "k"}, idempotency.BeginOptions{Lease: time.Minute})
	require.NoError(t, err)
	require.Equal(t, idempotency.Replay, c.Status)
}

func TestOneKeyIsOneRequest(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	with := func(target, body string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
		r.Header.Set("Idempotency-Key", "k")
		return r
	}
	s.want(s.do(with("/orders?a=b", "c")), 200, "ok")
	for _, other := range []*http.Request{with("/orders?a=bc", ""), with("/orders", "c"), with("/orders?a=b", "c\n"), with("/orders?a=", "bc")} {
		s.problem(s.do(other), 422, "Key_reused")
	}
	same := with("/orders?a=b", "c")
	same.Header.Set("Traceparent", "another")
	s.want(s.do(same), 200, "ok")
	require.Equal(t, 1, s.runs)
}

// The fingerprint is stored with the record: a new rule needs a new version byte.
func TestFingerprintIsFrozen(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	s.want(s.do(post("k", "eggs")), 200, "ok")
	rule := sha256.Sum256([]byte("\x01\x04POST\x07/orders\x00\x04eggs"))
	stored := sha256.Sum256(rule[:])
	o := idempotency.BeginOptions{Lease: time.Minute, Fingerprint: append([]byte{1}, stored[:]...)}
	c, err := s.store.Begin(t.Context(), idempotency.Key{Scope: `"a" POST /orders`, ID: "k"}, o)
	require.NoError(t, err)
	require.Equal(t, idempotency.Replay, c.Status)
}

func TestKeys(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	for name, values := range map[string][]string{
		"several lines": {"a", "a"}, "empty": {""}, "blank": {"  "}, "list": {"a,b"}, "spaced list": {"a, b"}, "space": {"a b"},
		"long": {strings.Repeat("x", 256)}, "not ASCII": {"ä"}, "control": {"a\x00"}, "delete": {"a\x7f"}, "open string": {`"a`},
		"bad escape": {`"a\b"`}, "ends in an escape": {`"a\`}, "parameter": {`"a";b=1`}, "list of strings": {`"a", "b"`}, "empty string": {`""`},
		"string with a space": {`"a b"`}, "one quote": {`"`},
	} {
		r := post("", "")
		r.Header["Idempotency-Key"] = values
		w := s.do(r)
		require.Equal(t, 400, w.Code, name)
		s.problem(w, 400, "Key_malformed")
	}
	s.problem(s.do(post("", "")), 400, "Key_missing")
	require.Zero(t, s.runs)

	for bare, quoted := range map[string]string{
		"8e03978e-40d5-43dd-bc93-6894a57f9324": `"8e03978e-40d5-43dd-bc93-6894a57f9324"`,
		`a\b`:                                  `"a\\b"`, `a"b`: `"a\"b"`, strings.Repeat("x", 255): `"` + strings.Repeat("x", 255) + `"`,
	} {
		s.runs = 0
		s.want(s.do(post(bare, "")), 200, "ok")
		s.want(s.do(post(quoted, "")), 200, "ok")
		require.Equal(t, 1, s.runs, "%s and %s are one key", bare, quoted)
	}
}

func TestWhatIsNotGuardedPasses(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	s.config.Optional = true
	for range 2 {
		s.want(s.do(post("", "x")), 200, "ok")
		get := httptest.NewRequest(http.MethodGet, "/orders", nil)
		get.Header.Set("Idempotency-Key", "k")
		s.want(s.do(get), 200, "ok")
	}
	require.Equal(t, 4, s.runs)
	bad := post("a b", "")
	s.problem(s.do(bad), 400, "Key_malformed")
}

func TestScopeRefuses(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	r := post("k", "")
	r.Header.Set("Tenant", "nobody")
	var out bytes.Buffer
	s.config.Log = slog.New(slog.NewTextHandler(&out, nil))
	s.problem(s.do(r), 403, "Scope_refused")
	require.Zero(t, s.runs)
	require.Contains(t, out.String(), "error=nobody", "the client is not told why, the operator is")
}

func TestNoBoundIsTooHigh(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	s.config.MaxKeptBytes, s.config.MaxRequestBytes = math.MaxInt, math.MaxInt64
	for range 2 {
		s.want(s.do(post("k", "x")), 200, "ok")
	}
	require.Equal(t, 1, s.runs)
}

func TestBodies(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		_, _ = w.Write(b)
	})
	s.config.MaxRequestBytes = 10
	s.want(s.do(post("fits", "0123456789")), 200, "0123456789")
	s.problem(s.do(post("k", "0123456789x")), 413, "Body_too_large")
	unknown := post("k", "")
	unknown.Body, unknown.ContentLength = io.NopCloser(strings.NewReader("0123456789x")), -1
	s.problem(s.do(unknown), 413, "Body_too_large")
	broken := post("k", "")
	broken.Body, broken.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("01"), failing{})), -1
	s.problem(s.do(broken), 400, "Body_unreadable")
	s.want(s.do(post("k", "another")), 200, "another") // nothing was claimed
}

// A form that was parsed outside of the guard has left no body, and so nothing to tell two requests apart.
func TestABodyThatWasReadBefore(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	r := post("k", "amount=1")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, "1", r.FormValue("amount"))
	s.problem(s.do(r), 400, "Body_unreadable")
	require.Zero(t, s.runs)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWhichAnswersAreKept(t *testing.T) {
	keep := map[int]bool{}
	for _, status := range []int{200, 201, 202, 204, 301, 302, 303, 304, 307, 400, 402, 404, 405, 406, 410, 413, 414, 415, 416, 422, 451} {
		keep[status] = true
	}
	for _, status := range []int{401, 403, 407, 408, 409, 411, 412, 418, 421, 423, 424, 425, 426, 428, 429, 431, 500, 501, 502, 503, 504, 599} {
		keep[status] = false
	}
	for status, kept := range keep {
		s := newSite(t, says(status, ""))
		s.want(s.do(post("k", "")), status, "")
		again := s.do(post("k", ""))
		s.want(again, status, "")
		require.Equal(t, kept, again.Header().Get("Idempotent-Replayed") == "true", status)
		require.Equal(t, map[bool]int{true: 1, false: 2}[kept], s.runs, status)
	}

	s := newSite(t, says(500, "no"))
	s.config.Keep = func(status int) bool { return status == 500 }
	s.want(s.do(post("k", "")), 500, "no")
	s.want(s.do(post("k", "")), 500, "no")
	require.Equal(t, 1, s.runs)
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.handler = func(w http.ResponseWriter, r *http.Request) {
			again := s.do(post("k", "x"))
			s.problem(again, 409, "In_flight")
			require.Equal(t, "2", again.Header().Get("Retry-After"), "not the 30 s of the lease: most work is faster")
			s.problem(s.do(post("k", "another")), 422, "Key_reused")
			w.WriteHeader(http.StatusAccepted)
		}
		s.want(s.do(post("k", "x")), 202, "")
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Second)
			_, _ = io.WriteString(w, "slow")
		})
		s.config.Wait = 5 * time.Second
		first := httptest.NewRecorder()
		s.do(post("another", ""))
		go s.serve(first, post("k", ""))
		synctest.Wait()
		s.want(s.do(post("k", "")), 200, "slow")
		synctest.Wait()
		s.want(first, 200, "slow")
		require.Equal(t, 2, s.runs)
	})
}

func TestAnAnswerThatCannotBeKeptLeavesATombstone(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"too large at once": says(200, strings.Repeat("x", 101)),
		"too large in the end": func(w http.ResponseWriter, _ *http.Request) {
			for range 101 {
				_, _ = io.WriteString(w, "x")
			}
		},
		"flushed": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
		},
		"flushed by a controller": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
			require.NoError(t, http.NewResponseController(w).Flush())
			_, _ = io.WriteString(w, "x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, handler)
			s.config.MaxKeptBytes = 100
			s.want(s.do(post("k", "")), 200, strings.Repeat("x", 101))
			s.problem(s.do(post("k", "")), 410, "Answer_not_kept")
			require.Equal(t, 1, s.runs)
		})
	}
}

// Over real connections: trailers are neither lost nor kept.
func TestTrailers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "x")
			w.Header().Set("Sum", "1")
		},
		"not announced": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.Header().Set(http.TrailerPrefix+"Sum", "1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, handler)
			server := httptest.NewServer(http.HandlerFunc(s.serve))
			defer server.Close()
			for _, want := range []int{200, 410} {
				resp, _ := s.over(server, "k", "")
				require.Equal(t, want, resp.StatusCode)
				require.Equal(t, want == 200, resp.Trailer.Get("Sum") == "1")
			}
		})
	}
}

// A failure that was streamed is still one: the key is free.
func TestAStreamedFailureIsReleased(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		w.(http.Flusher).Flush()
	})
	s.want(s.do(post("k", "")), 502, "")
	s.want(s.do(post("k", "")), 502, "")
	require.Equal(t, 2, s.runs)
}

type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, nil, nil }

func TestHijack(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if errors.Is(err, http.ErrNotSupported) {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		require.NoError(t, err)
		_ = conn.Close()
	})
	s.want(s.do(post("no", "")), 501, "")
	ours, theirs := net.Pipe()
	defer theirs.Close()
	s.serve(hijackable{httptest.NewRecorder(), ours}, post("k", ""))
	s.problem(s.do(post("k", "")), 410, "Answer_not_kept")
	require.Equal(t, 2, s.runs)
}

func TestAPanicFreesTheKeyUnlessTheAnswerHasBegun(t *testing.T) {
	for name, end := range map[string]func(){
		"panic": func() { panic("boom") },
		"abort": func() { panic(http.ErrAbortHandler) },
		"exit":  runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			for begun, begin := range map[string]http.HandlerFunc{
				"nothing":   func(http.ResponseWriter, *http.Request) {},
				"a failure": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
				"an answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "never sent") },
				"a stream":  func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
			} {
				s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
					begin(w, r)
					end()
				})
				var recovered any
				w := httptest.NewRecorder()
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { recovered = recover() }()
					s.serve(w, post("k", ""))
				})
				wg.Wait()
				require.Equal(t, map[string]any{"panic": "boom", "abort": http.ErrAbortHandler, "exit": nil}[name], recovered)
				require.Empty(t, w.Body.String())
				s.handler = says(200, "ok")
				if begun == "an answer" || begun == "a stream" {
					s.problem(s.do(post("k", "")), 410, "Answer_not_kept")
				} else {
					s.want(s.do(post("k", "")), 200, "ok")
				}
			}
		})
	}
}

// A proxy learns too late that the answer of its upstream breaks off: what was asked for has been done there.
func TestAProxyWhoseUpstreamBreaksOff(t *testing.T) {
	effects := 0
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		effects++
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusCreated)
	}))
	defer upstream.Close()
	to, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ErrorLog: log.New(io.Discard, "", 0),
	}
	s := newSite(t, proxy.ServeHTTP)
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	defer server.Close()
	send := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("x"))
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", "k")
		resp, err := server.Client().Do(r)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, resp.Body.Close())
		}
		return resp, err
	}
	_, err = send()
	require.Error(t, err, "the connection breaks off, too")
	resp, err := send()
	require.NoError(t, err)
	require.Equal(t, 410, resp.StatusCode)
	require.Equal(t, 1, effects)
}

func TestClientsThatGoAway(t *testing.T) {
	for name, test := range map[string]struct {
		detach bool
		runs   int
	}{"the handler is told": {false, 2}, "the handler goes on": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-r.Context().Done():
						w.WriteHeader(http.StatusServiceUnavailable)
					case <-time.After(300 * time.Millisecond):
						w.WriteHeader(http.StatusCreated)
					}
				})
				s.config.Detach = test.detach
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				s.do(post("k", "").WithContext(ctx))
				s.want(s.do(post("k", "")), 201, "")
				require.Equal(t, test.runs, s.runs)
			})
		})
	}
}

func TestStoreThatFails(t *testing.T) {
	errDown := errors.New("down")
	t.Run("before the work", func(t *testing.T) {
		s := newSite(t, says(200, "ok"))
		s.store = &idempotencytest.Faulty{Store: s.store, Before: func(context.Context, idempotencytest.Op) error { return errDown }}
		w := s.do(post("k", ""))
		s.problem(w, 503, "Store_unavailable")
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Zero(t, s.runs)
	})
	t.Run("after the work", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, says(201, "made"))
			s.config.Park = true
			s.store = &idempotencytest.Faulty{Store: s.store, Before: func(_ context.Context, op idempotencytest.Op) error {
				if op == idempotencytest.Complete {
					return errDown
				}
				return nil
			}}
			s.want(s.do(post("k", "")), 201, "made")
			s.problem(s.do(post("k", "")), 409, "In_flight")
			time.Sleep(time.Minute)
			s.problem(s.do(post("k", "")), 409, "Outcome_unknown")
			require.Equal(t, 1, s.runs)
		})
	})
	t.Run("an owner that was replaced", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, nil)
			mem := s.store
			s.store = &idempotencytest.Faulty{Store: mem, Before: func(_ context.Context, op idempotencytest.Op) error {
				if op == idempotencytest.Extend {
					return errDown
				}
				return nil
			}}
			s.handler = func(w http.ResponseWriter, _ *http.Request) {
				if s.runs == 1 {
					time.Sleep(time.Minute)
					s.want(s.do(post("k", "")), 200, "second")
					w.Header().Set("Location", "/first")
					_, _ = io.WriteString(w, "first")
					return
				}
				_, _ = io.WriteString(w, "second")
			}
			w := s.do(post("k", ""))
			s.problem(w, 409, "In_flight")
			require.Empty(t, w.Header().Get("Location"), "nothing of an answer that does not count")
			s.want(s.do(post("k", "")), 200, "second")
		})
	})
}

func TestOuterLayersKeepTheirHeaders(t *testing.T) {
	s := newSite(t, says(200, "ok"))
	for range 2 {
		w := httptest.NewRecorder()
		w.Header().Set("X-Request-Id", "outer")
		s.serve(w, post("k", ""))
		require.Equal(t, "outer", w.Header().Get("X-Request-Id"))
	}
}

func TestTheWorkKnowsItsTicket(t *testing.T) {
	s := newSite(t, func(_ http.ResponseWriter, r *http.Request) {
		ticket, ok := idempotency.FromContext(r.Context())
		require.True(t, ok)
		require.Equal(t, idempotency.Key{Scope: `"a" POST /orders`, ID: "k"}, ticket.Key)
	})
	s.want(s.do(post(`"k"`, "")), 200, "")
}

// What is stored outlives a release: this is an answer as the first one wrote it.
func TestAnswersOfTheFirstReleaseAreReplayed(t *testing.T) {
	s := newSite(t, says(500, "must not run"))
	k := idempotency.Key{Scope: `"a" POST /orders`, ID: "k"}
	c, err := s.store.Begin(t.Context(), k, idempotency.BeginOptions{Lease: time.Minute})
	require.NoError(t, err)
	golden := "\x01\xc9\x01\x02\x0cContent-Type\x0atext/plain\x08Location\x02/7made"
	require.NoError(t, s.store.Complete(t.Context(), c.Ticket, idempotency.Result{Body: []byte(golden)}, time.Hour))
	w := s.do(post("k", ""))
	s.want(w, 201, "made")
	require.Equal(t, "/7", w.Header().Get("Location"))

	made := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/7")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "made")
	})
	made.do(post("k", ""))
	c, err = made.store.Begin(t.Context(), k, idempotency.BeginOptions{Lease: time.Minute})
	require.NoError(t, err)
	require.Equal(t, golden, string(c.Result.Body))
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte("\x01\xc9\x01\x01\x01A\x01bmade"))
	f.Add([]byte("\x02 of a release to come"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stored []byte) {
		s := newSite(t, says(500, "must not run"))
		c, err := s.store.Begin(t.Context(), idempotency.Key{Scope: `"a" POST /orders`, ID: "k"}, idempotency.BeginOptions{Lease: time.Minute})
		require.NoError(t, err)
		require.NoError(t, s.store.Complete(t.Context(), c.Ticket, idempotency.Result{Body: bytes.Clone(stored)}, time.Hour))
		if w := s.do(post("k", "")); w.Header().Get("Idempotent-Replayed") == "" {
			s.problem(w, 410, "Answer_not_kept")
		}
		require.Zero(t, s.runs)
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := httpguard.New(nil, nil, httpguard.Config{
		Lease: -1, Retain: -1, Wait: -1, MaxRequestBytes: -1, MaxKeptBytes: -1, Methods: []string{}, Headers: []string{"set-cookie", "date"},
	})
	_, lower := httpguard.New(newSite(t, nil).store, tenant, httpguard.Config{Methods: []string{"POST", "patch", ""}})
	require.ErrorContains(t, lower, `"patch"`)
	require.ErrorContains(t, lower, `""`)
	for _, word := range []string{"store", "scope", "Lease", "Retain", "Wait", "MaxRequestBytes", "MaxKeptBytes", "Methods", "set-cookie", "date"} {
		require.ErrorContains(t, err, word)
	}
}

// Over a real connection: what net/http itself does with the answer.
func TestOverHTTP(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	defer server.Close()
	for i := range 3 {
		resp, body := s.over(server, "k", "<html>")
		require.Equal(t, "<html>", body)
		require.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
		require.EqualValues(t, 6, resp.ContentLength)
		require.Equal(t, i > 0, resp.Header.Get("Idempotent-Replayed") == "true")
	}
}

// The types of the problems are links to headings of the package's page.
func TestProblemsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	source, err := os.ReadFile("problem.go")
	require.NoError(t, err)
	titles := regexp.MustCompile(`problem\{http\.\w+, "([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	require.Len(t, titles, 10)
	for _, title := range titles {
		require.Contains(t, string(doc), "\n// # "+title[1]+"\n//\n")
	}
}

// What the guard gives the handler behaves as the server's own does.
func TestTheHandlerSeesAnOrdinaryExchange(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "42", r.PathValue("id"))
		require.Equal(t, "POST /orders/{id}", r.Pattern)
		c := http.NewResponseController(w)
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Minute)))
		require.NoError(t, c.EnableFullDuplex())
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		for _, code := range []int{0, 99, 1000} {
			require.Panics(t, func() { w.WriteHeader(code) })
		}
		n, err := io.Copy(w, io.LimitReader(r.Body, 1<<20)) // ReaderFrom, where there is one
		require.NoError(t, err)
		require.EqualValues(t, 5000, n)
		w.WriteHeader(http.StatusTeapot) // too late
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{id}", s.serve)
	server := httptest.NewServer(mux)
	defer server.Close()
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
	})
	payload := strings.Repeat("x", 5000)
	for i := range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/orders/42", io.MultiReader(strings.NewReader(payload)))
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", "k")
		r.Header.Set("Expect", "100-continue")
		resp, err := server.Client().Do(r)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, payload, string(b))
		require.Equal(t, i > 0, resp.Header.Get("Idempotent-Replayed") == "true")
	}
	require.Equal(t, 3, hints, "100 twice, 103 once")
	require.Equal(t, 1, s.runs)
}

// The deadline that package client brings along ends the wait for another request's answer.
func TestWithinTheDeadlineOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusCreated)
		})
		s.config.Wait = time.Hour
		inbound, err := client.NewInbound(client.InboundConfig{})
		require.NoError(t, err)
		site := inbound(http.HandlerFunc(s.serve))
		send := func(ms string) *httptest.ResponseRecorder {
			r := post("k", "")
			r.Header.Set("Tandem-Timeout-Ms", ms)
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			return w
		}
		first := make(chan *httptest.ResponseRecorder)
		go func() { first <- send("5000") }()
		synctest.Wait()
		began := time.Now()
		s.problem(send("1000"), 409, "In_flight")
		require.Equal(t, time.Second, time.Since(began))
		s.want(<-first, 201, "")
		s.want(send("1000"), 201, "")
		require.Equal(t, 1, s.runs)
	})
}
