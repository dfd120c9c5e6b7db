package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/retry"
)

// immediate takes the randomness out of a test of time: the first wait is nothing.
func immediate() retry.Policy { return retry.Policy{Backoff: func() retry.Intervals { return none{} }} }

type none struct{}

func (none) NextBackOff() time.Duration { return 0 }
func (none) Reset()                     {}

func TestAttemptTimeoutIsNotTheCallers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(silence, silence, answer(200))
		res, err := get(t.Context(), t, transport(t, w, client.Config{Retry: immediate()}))
		require.NoError(t, err)
		require.Equal(t, "OK", text(t, res))
		require.Equal(t, 3*time.Second, w.seen[1].at)
		require.Equal(t, 6*time.Second, w.seen[2].at)
	})
}

// While another attempt is allowed, one gets at most half of what remains of the deadline.
func TestHalfOfTheDeadline(t *testing.T) {
	at := func(w *wire) (all []time.Duration) {
		for _, s := range w.seen {
			all = append(all, s.at)
		}
		return all
	}
	ms := func(n ...time.Duration) (all []time.Duration) {
		for _, d := range n {
			all = append(all, d*time.Millisecond)
		}
		return all
	}
	for _, c := range []struct {
		rule     string
		deadline time.Duration // of the caller
		config   client.Config
		method   string
		begin    []time.Duration
		end      time.Duration
	}{
		{"of the caller's", time.Second, client.Config{}, "GET", ms(0, 500, 750), time.Second},
		{"of the call's own", 0, client.Config{Timeout: 2 * time.Second}, "GET", ms(0, 1000, 1500), 2 * time.Second},
		{"but not more than the attempt timeout", 0, client.Config{}, "GET", ms(0, 3000, 6000), 9 * time.Second},
		{"all of it where no other is allowed", time.Second, client.Config{}, "POST", ms(0), time.Second},
		{"all of it for the only one", time.Second, client.Config{Retry: retry.Policy{MaxAttempts: 1}}, "GET", ms(0), time.Second},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				c.config.Retry.Backoff = immediate().Backoff
				w := newWire(silence)
				_, err := send(ctx, t, transport(t, w, c.config), c.method, nil)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, c.begin, at(w))
				require.Equal(t, c.end, time.Since(w.start))
			})
		})
	}
}

// Without net/http's Timeout the whole call is bounded, up to the headers.
func TestTimeoutOfTheCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(silence)
		_, err := send(t.Context(), t, transport(t, w, client.Config{AttemptTimeout: client.NoTimeout}), http.MethodPost, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "client: no response to the call within 10s")
		require.Equal(t, 10*time.Second, time.Since(w.start))
	})
}

// A wait that would outlive the deadline is not begun: the response is returned now.
func TestNoWaitIntoTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(503))
		policy := retry.Policy{Backoff: hourly}
		res, err := get(t.Context(), t, transport(t, w, client.Config{Retry: policy}))
		require.NoError(t, err)
		require.Equal(t, "Service Unavailable", text(t, res))
		require.Zero(t, time.Since(w.start))
	})
}

// The deadline that the base sees is that of the attempt, and one whose parent ends sooner is the parent's.
func TestDeadlineOfTheAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(answer(200))
		tr := transport(t, w, client.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for i, c := range []struct {
			ctx  context.Context
			rest time.Duration
		}{{t.Context(), 3 * time.Second}, {ctx, time.Second}} {
			res, err := get(c.ctx, t, tr)
			require.NoError(t, err)
			deadline, ok := w.seen[i].ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, c.rest, time.Until(deadline))
			text(t, res)
		}
	})
}

// The context of an attempt that ran out says so itself, also to those who do not ask for its cause.
func TestErrOfTheAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var ended error
		w := newWire(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			ended = r.Context().Err()
			return nil, ended
		})
		_, err := send(t.Context(), t, transport(t, w, client.Config{}), http.MethodPost, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, context.DeadlineExceeded, ended)
	})
}

// Both timeouts end at the headers: a stream lives on, and its context with it, until it is closed.
func TestBodyOutlivesTheTimeouts(t *testing.T) {
	drip := func(ctx context.Context) io.Reader { return &dripping{ctx, 30 * time.Second, 120} }
	for _, end := range []string{"read to its end", "closed half way"} {
		t.Run(end, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWire(with(200, drip))
				res, err := get(t.Context(), t, transport(t, w, client.Config{}))
				require.NoError(t, err)
				ctx := w.seen[0].ctx
				if end == "read to its end" {
					all, err := io.ReadAll(res.Body)
					require.NoError(t, err)
					require.Len(t, all, 120)
					require.Equal(t, time.Hour, time.Since(w.start))
					require.Error(t, ctx.Err(), "the attempt ends with the body")
				} else {
					_, err := io.ReadFull(res.Body, make([]byte, 60))
					require.NoError(t, err)
					require.NoError(t, ctx.Err())
				}
				require.NoError(t, res.Body.Close())
				require.Equal(t, context.Canceled, ctx.Err())
				require.Zero(t, w.left())
			})
		})
	}
}

func TestBodyIdleTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(with(200, silent))
		for _, deadline := range []time.Duration{0, 100 * time.Second} { // with a timer of the attempt, and without
			ctx, config := t.Context(), client.Config{}
			if deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, deadline)
				defer cancel()
				config = client.Config{Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, Retry: retry.Never()}
			}
			res, err := get(ctx, t, transport(t, w, config))
			require.NoError(t, err)
			start := time.Now()
			_, err = io.ReadAll(res.Body)
			require.Equal(t, time.Minute, time.Since(start))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, "client: no more of the body within 1m0s")
			var timeout net.Error
			require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
			require.NoError(t, res.Body.Close())
		}
	})
}

// After the headers the caller has the response: its broken body is the caller's to see, not ours to repeat.
func TestBrokenBodyIsNotRetried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(with(200, func(context.Context) io.Reader {
			return io.MultiReader(bytes.NewReader(make([]byte, 1<<10)), iotest.ErrReader(errReset))
		}))
		res, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.NoError(t, err)
		_, err = io.ReadAll(res.Body)
		require.ErrorIs(t, err, errReset)
		require.Error(t, w.seen[0].ctx.Err(), "the attempt ends with the body")
		require.NoError(t, res.Body.Close())
		require.Equal(t, 1, w.attempts())
	})
}

// Only the other side's silence counts, not what the reader does between two reads.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire(with(200, func(ctx context.Context) io.Reader { return &dripping{ctx, time.Second, 10} }))
		res, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.NoError(t, err)
		for range 10 {
			time.Sleep(5 * time.Minute)
			_, err := res.Body.Read(make([]byte, 1))
			require.NoError(t, err)
		}
		require.NoError(t, res.Body.Close())
	})
}

// When the headers come in the instant in which the time runs out, the caller gets a response that can be read, or
// none.
func TestHeadersAtTheLastInstant(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for range 50 {
			w := newWire(func(r *http.Request) (*http.Response, error) {
				time.Sleep(3 * time.Second)
				return with(200, func(ctx context.Context) io.Reader { return &dripping{ctx, time.Second, 3} })(r)
			})
			res, err := send(t.Context(), t, transport(t, w, client.Config{}), http.MethodPost, nil)
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			} else {
				require.Equal(t, "...", text(t, res))
			}
			require.Zero(t, w.left())
		}
	})
}

// What is discarded is drained as far as that is worth a connection, and closed.
func TestDiscard(t *testing.T) {
	kilobytes := func(n int) func(context.Context) io.Reader {
		return func(context.Context) io.Reader { return bytes.NewReader(make([]byte, n<<10)) }
	}
	endless := func(context.Context) io.Reader { return zeros{} }
	none := client.Config{Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, BodyIdleTimeout: client.NoTimeout}
	for _, c := range []struct {
		rule   string
		config client.Config
		body   func(context.Context) io.Reader
		took   time.Duration
		eof    bool
	}{
		{"8 KiB are drained", client.Config{}, kilobytes(8), 0, true},
		{"64 KiB are drained", client.Config{}, kilobytes(64), 0, true},
		{"an endless one is not", client.Config{}, endless, 0, false},
		{"a silent one is not waited for", client.Config{}, silent, 100 * time.Millisecond, false},
		{"8 KiB are drained without timeouts", none, kilobytes(8), 0, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c.config.Retry = immediate()
				var first *watched
				w := newWire(func(r *http.Request) (*http.Response, error) {
					first = &watched{Reader: c.body(r.Context())}
					return with(503, func(context.Context) io.Reader { return first })(r)
				}, answer(200))
				res, err := get(t.Context(), t, transport(t, w, c.config))
				require.NoError(t, err)
				require.Equal(t, c.took, time.Since(w.start))
				require.Equal(t, c.eof, first.eof, "read to its end")
				require.Less(t, first.read, 128<<10)
				text(t, res)
				require.Zero(t, w.left())
			})
		})
	}
}

type watched struct {
	io.Reader
	read int
	eof  bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.read += n
	w.eof = err == io.EOF
	return n, err
}

// Draining does not take the time that was found to be there for the wait and for the next attempt.
func TestDiscardIsPartOfTheWait(t *testing.T) {
	for _, c := range []struct {
		rule           string
		deadline, wait time.Duration
		begin          time.Duration // of the second attempt
	}{
		{"shorter than the wait", 200 * time.Millisecond, 150 * time.Millisecond, 150 * time.Millisecond},
		{"a tenth of what remains", 50 * time.Millisecond, 0, 5 * time.Millisecond},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				w := newWire(with(503, silent), answer(200))
				res, err := get(ctx, t, transport(t, w, client.Config{Retry: retry.Policy{Backoff: steady(c.wait)}}))
				require.NoError(t, err)
				text(t, res)
				require.Equal(t, c.begin, w.seen[1].at)
			})
		})
	}
}

func steady(d time.Duration) func() retry.Intervals {
	return func() retry.Intervals { return interval(d) }
}

type interval time.Duration

func (i interval) NextBackOff() time.Duration { return time.Duration(i) }
func (interval) Reset()                       {}

// A silent body that no context can end is closed: nothing else could end it.
func TestDiscardWithoutTimeouts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := io.Pipe()
		w := newWire(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: r, ContentLength: -1}, nil
		}, answer(200))
		res, err := get(t.Context(), t, transport(t, w, client.Config{
			Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, BodyIdleTimeout: client.NoTimeout, Retry: immediate(),
		}))
		require.NoError(t, err)
		require.Equal(t, 100*time.Millisecond, time.Since(w.start))
		text(t, res)
		require.Zero(t, w.left())
	})
}

// A switched protocol is written to, may be silent for hours, and ends its attempt when it is closed.
func TestSwitchedProtocol(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := roundTripper(func(r *http.Request) (*http.Response, error) {
			context.AfterFunc(r.Context(), func() { near.Close() })
			return &http.Response{StatusCode: 101, Header: http.Header{}, Body: near, Request: r}, nil
		})
		res, err := get(t.Context(), t, transport(t, w, client.Config{}))
		require.NoError(t, err)
		conn, ok := res.Body.(io.ReadWriteCloser)
		require.True(t, ok)
		go func() {
			got := make([]byte, 4)
			_, _ = io.ReadFull(far, got)
			time.Sleep(10 * time.Hour)
			_, _ = far.Write(got)
		}()
		_, err = conn.Write([]byte("ping"))
		require.NoError(t, err)
		got := make([]byte, 4)
		_, err = io.ReadFull(conn, got)
		require.NoError(t, err)
		require.Equal(t, "ping", string(got))
		half, ok := res.Body.(interface{ CloseWrite() error })
		require.True(t, ok)
		require.ErrorIs(t, half.CloseWrite(), http.ErrNotSupported, "a pipe cannot")
		require.NoError(t, conn.Close())
	})
}
