package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/client"
)

// A step answers one attempt.
type step func(r *http.Request) (*http.Response, error)

// A wire is the other side: it answers attempt n with step n, and all that follow the last step with the last step.
type wire struct {
	steps []step

	mu     sync.Mutex
	start  time.Time
	seen   []seen
	opened int // bodies of responses
	closed int
}

type seen struct {
	at     time.Duration // since the wire was made
	method string
	header http.Header
	body   string
	ctx    context.Context
}

func newWire(steps ...step) *wire { return &wire{steps: steps, start: time.Now()} }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	w.mu.Lock()
	do := w.steps[min(len(w.seen), len(w.steps)-1)]
	w.seen = append(w.seen, seen{time.Since(w.start), r.Method, r.Header.Clone(), string(body), r.Context()})
	w.mu.Unlock()
	res, err := do(r)
	if res == nil {
		return nil, err
	}
	if res.Body != nil && res.Body != http.NoBody {
		w.mu.Lock()
		w.opened++
		w.mu.Unlock()
		res.Body = &counted{ReadCloser: res.Body, closed: func() {
			w.mu.Lock()
			w.closed++
			w.mu.Unlock()
		}}
	}
	res.Request = r
	return res, err
}

func (w *wire) attempts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

// left is how many bodies nobody has closed.
func (w *wire) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened - w.closed
}

type counted struct {
	io.ReadCloser
	once   sync.Once
	closed func()
}

func (c *counted) Close() error {
	c.once.Do(c.closed)
	return c.ReadCloser.Close()
}

// answer has a body of its status text. Headers come in pairs.
func answer(status int, pairs ...string) step {
	return func(*http.Request) (*http.Response, error) {
		text := http.StatusText(status)
		h := make(http.Header)
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return &http.Response{
			StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
		}, nil
	}
}

// with answers 200, or another status, with a body.
func with(status int, body func(ctx context.Context) io.Reader) step {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{}, Body: io.NopCloser(body(r.Context())), ContentLength: -1,
		}, nil
	}
}

func fail(err error) step {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// silence answers when the attempt is over, as net/http does.
func silence(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func after(d time.Duration, next step) step {
	return func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return next(r)
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
}

var errReset = errors.New("connection reset by peer")

// dripping is a body that sends a byte every so often, as long as its attempt lives.
type dripping struct {
	ctx   context.Context
	every time.Duration
	left  int
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.every):
		d.left--
		p[0] = '.'
		return 1, nil
	case <-d.ctx.Done():
		return 0, context.Cause(d.ctx)
	}
}

// silent is a body that never sends anything.
func silent(ctx context.Context) io.Reader { return &dripping{ctx, 1000 * time.Hour, 1} }

// A sent body records that it was closed.
type sent struct {
	io.Reader
	closed int
}

func (s *sent) Close() error {
	s.closed++
	return nil
}

// bubble runs a test in virtual time. Nothing may be left running at its end: synctest sees to that.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func transport(t *testing.T, w http.RoundTripper, c client.Config) *client.Transport {
	t.Helper()
	c.Base = w
	tr, err := client.NewTransport(c)
	require.NoError(t, err)
	return tr
}

const target = "http://user:hunter2@service.test/private/path?token=secret"

func get(ctx context.Context, t *testing.T, tr http.RoundTripper) (*http.Response, error) {
	t.Helper()
	return send(ctx, t, tr, http.MethodGet, nil)
}

func send(ctx context.Context, t *testing.T, tr http.RoundTripper, method string, body io.Reader, pairs ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	require.NoError(t, err)
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Set(pairs[i], pairs[i+1])
	}
	return tr.RoundTrip(r)
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return string(b)
}

func payload() io.Reader { return bytes.NewReader([]byte("payload")) }
