package grpcclient_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

func TestUnaryRecovers(t *testing.T) {
	var told []grpcclient.Attempt
	c := grpcclient.Config{
		Idempotent: always,
		OnAttempt:  func(_ context.Context, e grpcclient.Attempt) { told = append(told, e); panic("contained") },
	}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = failingUntil(3)
		require.NoError(t, w.call(t.Context()))
		saw := w.saw()
		require.Len(t, saw, 3)
		assert.Empty(t, saw[0].metadata["tandem-attempt"], "only retries are told of")
		assert.Equal(t, []string{"2"}, saw[1].metadata["tandem-attempt"])
		assert.Equal(t, []string{"3"}, saw[2].metadata["tandem-attempt"])
		require.Len(t, told, 3)
		assert.Equal(t, codes.Unavailable, status.Code(told[0].Err))
		assert.Equal(t, 3, told[2].Number)
		assert.Equal(t, unaryMethod, told[2].Method)
		assert.NoError(t, told[2].Err)
	})
}

func TestErrorIsAStatusAndTellsTheCause(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.unary = func(context.Context, int) error { return withRetryInfo(codes.Unavailable, time.Millisecond) }
		err := w.call(t.Context())
		st, ok := status.FromError(err)
		require.True(t, ok)
		assert.Equal(t, codes.Unavailable, st.Code())
		assert.Equal(t, "scripted", st.Message())
		require.Len(t, st.Details(), 1)
		assert.IsType(t, &errdetails.RetryInfo{}, st.Details()[0])
		why, ok := errors.AsType[*retry.Error](err)
		require.True(t, ok)
		assert.Equal(t, 3, why.Attempts)
		assert.Equal(t, retry.Attempts, why.Reason)
		assert.ErrorIs(t, err, why.Err, "the error of the last attempt")
	})
}

func TestErrorOfOneAttemptReadsAsGrpcs(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.NotFound)
		err := w.call(t.Context())
		assert.EqualError(t, err, "rpc error: code = NotFound desc = scripted")
		why, ok := errors.AsType[*retry.Error](err)
		require.True(t, ok)
		assert.Equal(t, retry.Stopped, why.Reason)
	})
}

// The retries of a service config would multiply with ours.
func TestNativeRetriesAreOff(t *testing.T) {
	native := grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4,
		"initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`)
	inWorld(t, grpcclient.Config{}, setup{client: []grpc.DialOption{native}}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Unavailable)
		require.Error(t, w.call(t.Context()))
		assert.Len(t, w.saw(), 1)
	})
}

func TestAnInterceptorBelowMaySayThatItIsPermanent(t *testing.T) {
	calls := 0
	below := grpc.WithChainUnaryInterceptor(func(
		context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption,
	) error {
		calls++
		return retry.Permanent(status.Error(codes.Unavailable, "scripted"))
	})
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{client: []grpc.DialOption{below}}, func(t *testing.T, w *world) {
		assert.Equal(t, codes.Unavailable, status.Code(w.call(t.Context())))
		assert.Equal(t, 1, calls)
	})
}

func TestWhatIsRetried(t *testing.T) {
	const soon = time.Millisecond
	cases := map[string]struct {
		answer     func(ctx context.Context, n int) error
		idempotent bool
		calls      int
	}{
		"unavailable, idempotent":           {failing(codes.Unavailable), true, 3},
		"unavailable, not idempotent":       {failing(codes.Unavailable), false, 1},
		"pushback does not make it safe":    {failing(codes.Unavailable, "grpc-retry-pushback-ms", "1"), false, 1},
		"exhausted, no hint":                {failing(codes.ResourceExhausted), true, 1},
		"exhausted, pushback":               {failing(codes.ResourceExhausted, "grpc-retry-pushback-ms", "1"), true, 3},
		"aborted, no hint":                  {failing(codes.Aborted), true, 1},
		"aborted, pushback":                 {failing(codes.Aborted, "grpc-retry-pushback-ms", "0"), true, 3},
		"server's own deadline":             {failing(codes.DeadlineExceeded), true, 1},
		"server's own cancel":               {failing(codes.Canceled), true, 1},
		"internal":                          {failing(codes.Internal), true, 1},
		"internal, though the server asks":  {failing(codes.Internal, "grpc-retry-pushback-ms", "1"), true, 1},
		"not found":                         {failing(codes.NotFound), true, 1},
		"negative pushback":                 {failing(codes.Unavailable, "grpc-retry-pushback-ms", "-1"), true, 1},
		"garbage pushback":                  {failing(codes.Unavailable, "grpc-retry-pushback-ms", "soon"), true, 1},
		"empty pushback":                    {failing(codes.Unavailable, "grpc-retry-pushback-ms", ""), true, 1},
		"repeated pushback":                 {failing(codes.Unavailable, "grpc-retry-pushback-ms", "1", "grpc-retry-pushback-ms", "1"), true, 1},
		"pushback beyond the deadline":      {failing(codes.Unavailable, "grpc-retry-pushback-ms", "3600000"), true, 1},
		"pushback beyond 63 bits":           {failing(codes.Unavailable, "grpc-retry-pushback-ms", "99999999999999999999"), true, 1},
		"pushback beyond time.Duration":     {failing(codes.Unavailable, "grpc-retry-pushback-ms", strconv.Itoa(math.MaxInt64)), true, 1},
		"tandem-retry: no":                  {failing(codes.Unavailable, "tandem-retry", "no"), true, 1},
		"tandem-retry: something unknown":   {failing(codes.Unavailable, "tandem-retry", "perhaps"), true, 3},
		"exhausted, RetryInfo":              {func(context.Context, int) error { return withRetryInfo(codes.ResourceExhausted, soon) }, true, 3},
		"aborted, RetryInfo":                {func(context.Context, int) error { return withRetryInfo(codes.Aborted, soon) }, true, 3},
		"a negative RetryInfo is no wish":   {func(context.Context, int) error { return withRetryInfo(codes.Aborted, -soon) }, true, 1},
		"RetryInfo does not make it safe":   {func(context.Context, int) error { return withRetryInfo(codes.Unavailable, soon) }, false, 1},
		"RetryInfo longer than the timeout": {func(context.Context, int) error { return withRetryInfo(codes.Unavailable, time.Hour) }, true, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config := grpcclient.Config{Idempotent: func(string) bool { return c.idempotent }}
			inWorld(t, config, setup{}, func(t *testing.T, w *world) {
				w.unary = c.answer
				start := time.Now()
				require.Error(t, w.call(t.Context()))
				assert.Len(t, w.saw(), c.calls)
				if c.calls == 1 {
					assert.Zero(t, time.Since(start), "it returns at once")
				}
			})
		})
	}
}

func TestIdempotentByContext(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.unary = failingUntil(2)
		require.NoError(t, w.call(retry.Idempotent(t.Context())))
	})
}

// Our own timeout ends a call that may not happen twice, though no attempt timeout does and the caller has no deadline.
func TestTimeoutOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, err := grpcclient.Unary(grpcclient.Config{Timeout: 2 * time.Second, AttemptTimeout: grpcclient.NoTimeout})
		require.NoError(t, err)
		start := time.Now()
		err = i(t.Context(), unaryMethod, nil, nil, nil,
			func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
				return status.FromContextError(ctx.Err()).Err()
			})
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(start))
	})
}

// No timer ends a wait that our own timeout undercuts; the clock does.
func TestTimeoutOfTheCallPassesInTheWait(t *testing.T) {
	c := grpcclient.Config{Idempotent: always, Retry: retry.Policy{
		OnRetry: func(context.Context, retry.Event) { time.Sleep(time.Minute) },
	}}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Unavailable)
		err := w.call(t.Context())
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "scripted", "the error of the last attempt")
		assert.Len(t, w.saw(), 1)
	})
}

// An inbound HTTP call ends by a timer that contexts made of it learn of as a cancel. It is a deadline all the same.
func TestDeadlineToldAsACancel(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 1}})
	require.NoError(t, err)
	inWorld(t, grpcclient.Config{Breakers: group}, setup{}, func(t *testing.T, w *world) {
		w.unary = hang
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(context.DeadlineExceeded) })
		err := w.call(&call.Bounded{Context: ctx, Until: time.Now().Add(time.Second)})
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.Equal(t, breaker.Open, group.Get(unaryMethod).State(), "the server had its time")
	})
}

// A breaker below says nothing about this server.
func TestRefusalOfABreakerBelow(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 1}})
	require.NoError(t, err)
	below := grpc.WithChainUnaryInterceptor(func(
		context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption,
	) error {
		return &breaker.OpenError{Name: "below", RetryAfter: time.Hour}
	})
	inWorld(t, grpcclient.Config{Breakers: group}, setup{client: []grpc.DialOption{below}}, func(t *testing.T, w *world) {
		require.ErrorIs(t, w.call(t.Context()), breaker.ErrOpen)
		assert.Equal(t, breaker.Closed, group.Get(unaryMethod).State())
	})
}

// A line tells of a decision: another attempt, or none where there could have been one.
func TestLog(t *testing.T) {
	var log strings.Builder
	c := grpcclient.Config{Idempotent: always, Log: slog.New(slog.NewTextHandler(&log, nil))}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.NotFound)
		require.Error(t, w.call(t.Context()))
		assert.Empty(t, log.String())
		w.unary = func(ctx context.Context, n int) error {
			if n == 2 {
				return failing(codes.Unavailable)(ctx, n)
			}
			return status.Error(codes.NotFound, "secret")
		}
		require.Error(t, w.call(t.Context()))
		assert.Contains(t, log.String(), `msg="grpc call: another attempt" method=/grpc.testing.TestService/UnaryCall attempt=1 code=Unavailable`)
		assert.Contains(t, log.String(), `msg="grpc call: giving up" method=/grpc.testing.TestService/UnaryCall attempt=2 code=NotFound reason="not retryable"`)
		assert.NotContains(t, log.String(), "secret")
	})
}

func TestRetryableMayForbid(t *testing.T) {
	c := grpcclient.Config{Idempotent: always, Retry: retry.Policy{
		Retryable: func(err error) bool { return status.Code(err) != codes.Unavailable },
	}}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Unavailable)
		require.Error(t, w.call(t.Context()))
		w.unary = failing(codes.Internal)
		require.Error(t, w.call(t.Context()))
		assert.Len(t, w.saw(), 2, "true does not make INTERNAL worth another attempt")
	})
}

func TestHintIsAFloor(t *testing.T) {
	for name, hint := range map[string]func(context.Context, int) error{
		"RetryInfo": func(_ context.Context, n int) error {
			if n == 1 {
				return withRetryInfo(codes.ResourceExhausted, 700*time.Millisecond)
			}
			return nil
		},
		"pushback": func(ctx context.Context, n int) error {
			if n == 1 {
				return failing(codes.ResourceExhausted, "grpc-retry-pushback-ms", "700")(ctx, n)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
				w.unary = hint
				require.NoError(t, w.call(t.Context()))
				wait := w.saw()[1].at - w.saw()[0].at
				assert.GreaterOrEqual(t, wait, 700*time.Millisecond)
				assert.LessOrEqual(t, wait, 770*time.Millisecond)
			})
		})
	}
}

func TestAttemptTimeout(t *testing.T) {
	slowOnce := func(ctx context.Context, n int) error {
		if n == 1 {
			return hang(ctx, n)
		}
		return nil
	}
	t.Run("idempotent: another attempt", func(t *testing.T) {
		inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
			w.unary = slowOnce
			require.NoError(t, w.call(t.Context()))
			assert.Equal(t, 3*time.Second, w.saw()[0].left, "grpc-timeout is that of the attempt")
			assert.GreaterOrEqual(t, w.saw()[1].at, 3*time.Second)
		})
	})
	t.Run("not idempotent: the end", func(t *testing.T) {
		inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
			w.unary = slowOnce
			err := w.call(t.Context())
			assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 3*time.Second, time.Since(w.began))
			assert.Len(t, w.saw(), 1)
		})
	})
	t.Run("the server that gives up a moment earlier on the deadline it was sent", func(t *testing.T) {
		inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
			w.unary = func(ctx context.Context, n int) error {
				if n > 1 {
					return nil
				}
				deadline, _ := ctx.Deadline()
				time.Sleep(time.Until(deadline))
				return status.Error(codes.DeadlineExceeded, "scripted")
			}
			require.NoError(t, w.call(t.Context()))
		})
	})
}

func TestTimeoutBoundsAllAttempts(t *testing.T) {
	c := grpcclient.Config{Idempotent: always, Retry: retry.Policy{MaxAttempts: 100, Budget: retry.Unlimited}}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = hang
		err := w.call(t.Context())
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.LessOrEqual(t, time.Since(w.began), 10*time.Second)
		why, _ := errors.AsType[*retry.Error](err)
		assert.Equal(t, retry.Deadline, why.Reason)
	})
}

func TestAnAttemptLeavesRoomForAnother(t *testing.T) {
	lefts := func(c grpcclient.Config) (left []time.Duration) {
		inWorld(t, c, setup{}, func(t *testing.T, w *world) {
			w.unary = hang
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, w.call(ctx))
			for _, s := range w.saw() {
				left = append(left, s.left)
			}
		})
		return left
	}
	left := lefts(grpcclient.Config{Idempotent: always})
	require.Len(t, left, 3)
	assert.Equal(t, 500*time.Millisecond, left[0])
	assert.InDelta(t, 250*time.Millisecond, left[1], float64(25*time.Millisecond))
	assert.Greater(t, left[2], 100*time.Millisecond, "the last one gets all that is left")

	assert.Equal(t, []time.Duration{time.Second}, lefts(grpcclient.Config{}), "no attempt could follow: no half")
	assert.Equal(t, []time.Duration{time.Second}, lefts(grpcclient.Config{Idempotent: always, Retry: retry.Never()}))
}

func TestDoomedDeadline(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.unary = func(context.Context, int) error { return withRetryInfo(codes.Unavailable, time.Second) }
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := w.call(ctx)
		assert.Zero(t, time.Since(w.began))
		assert.Equal(t, codes.Unavailable, status.Code(err), "the upstream's error, not the deadline's")
		why, _ := errors.AsType[*retry.Error](err)
		assert.Equal(t, retry.Deadline, why.Reason)
	})
}

func TestCallerCancelsTheWait(t *testing.T) {
	c := grpcclient.Config{Idempotent: always, Retry: retry.Policy{BaseDelay: time.Second, MaxDelay: time.Second}}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = func(context.Context, int) error { return withRetryInfo(codes.Unavailable, time.Second) }
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(gone) })
		err := w.call(ctx)
		assert.Equal(t, 100*time.Millisecond, time.Since(w.began))
		assert.Equal(t, codes.Canceled, status.Code(err), "as grpc does")
		assert.ErrorIs(t, err, context.Canceled)
		assert.ErrorIs(t, err, gone)
		why, _ := errors.AsType[*retry.Error](err)
		assert.Equal(t, codes.Unavailable, status.Code(why.Err), "and the upstream's error")
	})
}

func TestCallOfADeadContext(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := w.call(ctx)
		assert.Equal(t, codes.Canceled, status.Code(err))
		assert.ErrorIs(t, err, context.Canceled)
		_, err = w.open(ctx)
		assert.Equal(t, codes.Canceled, status.Code(err))
		assert.Empty(t, w.saw())
	})
}

// A connection that cannot be made is proof that nothing began; one that breaks is not.
func TestNotIdempotentAndNotBegun(t *testing.T) {
	patient := grpcclient.Config{
		Timeout: time.Minute,
		Retry:   retry.Policy{MaxAttempts: 10, Budget: retry.Unlimited, Backoff: func() retry.Intervals { return every(time.Second) }},
	}
	refusing := func(times int32) setup {
		return setup{dial: func(next func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
			var dials atomic.Int32
			return func(ctx context.Context) (net.Conn, error) {
				if dials.Add(1) <= times {
					return nil, errors.New("refused")
				}
				return next(ctx)
			}
		}}
	}
	t.Run("unary", func(t *testing.T) {
		inWorld(t, patient, refusing(2), func(t *testing.T, w *world) {
			require.NoError(t, w.call(t.Context()))
			assert.Len(t, w.saw(), 1)
		})
	})
	t.Run("stream", func(t *testing.T) {
		inWorld(t, patient, refusing(2), func(t *testing.T, w *world) {
			w.duplex = func(int, duplexStream) error { return nil }
			_, err := w.client.FullDuplexCall(t.Context())
			require.NoError(t, err)
		})
	})
	t.Run("an interceptor that drops our options proves nothing", func(t *testing.T) {
		s := refusing(2)
		s.client = []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, _ ...grpc.CallOption,
		) error {
			return invoke(ctx, method, req, reply, cc)
		})}
		inWorld(t, patient, s, func(t *testing.T, w *world) {
			assert.Equal(t, codes.Unavailable, status.Code(w.call(t.Context())))
		})
	})
	t.Run("broken after it began", func(t *testing.T) {
		var conn net.Conn
		s := setup{dial: func(next func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
			return func(ctx context.Context) (_ net.Conn, err error) {
				conn, err = next(ctx)
				return conn, err
			}
		}}
		inWorld(t, patient, s, func(t *testing.T, w *world) {
			w.unary = func(context.Context, int) error { return conn.Close() }
			assert.Equal(t, codes.Unavailable, status.Code(w.call(t.Context())))
			assert.Len(t, w.saw(), 1)
		})
	})
}

// every is a policy of equal waits.
type every time.Duration

func (e every) NextBackOff() time.Duration { return time.Duration(e) }
func (every) Reset()                       {}

func TestBreakerOpensAndRefuses(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 2}})
	require.NoError(t, err)
	var last grpcclient.Attempt
	c := grpcclient.Config{Breakers: group, OnAttempt: func(_ context.Context, e grpcclient.Attempt) { last = e }}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Internal)
		require.Error(t, w.call(t.Context()))
		require.Error(t, w.call(t.Context()))
		err := w.call(t.Context())
		assert.Len(t, w.saw(), 2)
		assert.Zero(t, time.Since(w.began), "it fails fast")
		assert.Equal(t, codes.Unavailable, status.Code(err))
		open, ok := errors.AsType[*breaker.OpenError](err)
		require.True(t, ok)
		assert.Equal(t, unaryMethod, open.Name)
		assert.Positive(t, open.RetryAfter)
		assert.ErrorIs(t, err, breaker.ErrOpen)
		why, _ := errors.AsType[*retry.Error](err)
		assert.Equal(t, retry.Refused, why.Reason)
		assert.Equal(t, codes.Unavailable, status.Code(last.Err))
		require.ErrorIs(t, last.Err, breaker.ErrOpen)

		w.duplex = func(int, duplexStream) error { return nil }
		_, err = w.client.FullDuplexCall(t.Context())
		require.NoError(t, err, "each method has its own")
	})
}

// The failure that opens the breaker is the last one of its call, and what the caller is told.
func TestTheFailureThatOpensTheBreaker(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 2}})
	require.NoError(t, err)
	inWorld(t, grpcclient.Config{Breakers: group, Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Unavailable)
		err := w.call(t.Context())
		assert.Len(t, w.saw(), 2)
		assert.Less(t, time.Since(w.began), time.Second, "it does not wait for the breaker")
		assert.NotErrorIs(t, err, breaker.ErrOpen)
		assert.Equal(t, "scripted", status.Convert(err).Message())
		why, _ := errors.AsType[*retry.Error](err)
		assert.Equal(t, retry.Refused, why.Reason)
	})
}

func TestWhatTheBreakerCounts(t *testing.T) {
	cases := map[string]struct {
		answer     func(context.Context, int) error
		timeout    time.Duration // of the caller
		idempotent bool
		opens      bool
	}{
		"not found":             {answer: failing(codes.NotFound)},
		"exhausted":             {answer: failing(codes.ResourceExhausted)},
		"unavailable":           {answer: failing(codes.Unavailable), opens: true},
		"internal":              {answer: failing(codes.Internal), opens: true},
		"a plain error":         {answer: func(context.Context, int) error { return errors.New("plain") }, opens: true},
		"server's own cancel":   {answer: failing(codes.Canceled)},
		"server's own deadline": {answer: failing(codes.DeadlineExceeded), opens: true},
		"told not to retry":     {answer: failing(codes.Unavailable, "tandem-retry", "no")},
		"attempt timeout":       {answer: hang, opens: true},
		"a caller in a hurry":   {answer: hang, timeout: 299 * time.Millisecond},
		"half of a hurry":       {answer: hang, timeout: 400 * time.Millisecond, idempotent: true},
		"a patient caller":      {answer: hang, timeout: 300 * time.Millisecond, opens: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 3}})
			require.NoError(t, err)
			config := grpcclient.Config{Breakers: group, Idempotent: func(string) bool { return c.idempotent }}
			inWorld(t, config, setup{}, func(t *testing.T, w *world) {
				w.unary = c.answer
				for range 3 {
					ctx := t.Context()
					if c.timeout > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, c.timeout)
						defer cancel()
					}
					require.Error(t, w.call(ctx))
				}
				assert.Equal(t, c.opens, group.Get(unaryMethod).State() == breaker.Open)
			})
		})
	}
	t.Run("a cancelled caller", func(t *testing.T) {
		group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 1}})
		require.NoError(t, err)
		inWorld(t, grpcclient.Config{Breakers: group}, setup{}, func(t *testing.T, w *world) {
			w.unary = hang
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(2500*time.Millisecond, cancel)
			require.Error(t, w.call(ctx))
			assert.Equal(t, breaker.Closed, group.Get(unaryMethod).State())
		})
	})
}

// The slot of a probe is free again, however the attempt ends.
func TestPermitIsGivenBack(t *testing.T) {
	for name, leave := range map[string]func(){
		"panic":  func() { panic("scripted") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Probes: 1, Consecutive: 1}})
			require.NoError(t, err)
			leaving := false
			s := setup{client: []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(
				ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
			) error {
				if leaving {
					leave()
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			})}}
			inWorld(t, grpcclient.Config{Breakers: group}, s, func(t *testing.T, w *world) {
				group.Get(unaryMethod).Trip(time.Second)
				time.Sleep(time.Second + 1)
				leaving = true
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer func() { _ = recover() }()
					_ = w.call(t.Context())
				}()
				<-done
				leaving = false
				require.NoError(t, w.call(t.Context()))
			})
		})
	}
}

func TestBudgetIsPerTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := interceptor(t, grpcclient.Config{Idempotent: always, Breakers: breaker.Off()})
		calls := 0
		down := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			calls++
			return status.Error(codes.Unavailable, "scripted")
		}
		to := func(target string) (reasons map[retry.Reason]int) {
			cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			defer func() { _ = cc.Close() }()
			reasons = map[retry.Reason]int{}
			for range 50 {
				err := i(t.Context(), unaryMethod, nil, nil, cc, down)
				assert.Equal(t, codes.Unavailable, status.Code(err))
				why, _ := errors.AsType[*retry.Error](err)
				reasons[why.Reason]++
			}
			return reasons
		}
		first := to("passthrough:///a")
		assert.Positive(t, first[retry.Exhausted])
		assert.Less(t, calls, 110, "50 first attempts, 20 % of them, 30 at once and 3 per second")
		again, other := to("passthrough:///a"), to("passthrough:///b")
		assert.Less(t, again[retry.Attempts], first[retry.Attempts])
		assert.GreaterOrEqual(t, other[retry.Attempts], first[retry.Attempts]-2, "another target is not made to pay")
	})
}

func TestPolicyOfOneCall(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.unary = failing(codes.Unavailable)
		require.Error(t, w.call(retry.WithPolicy(t.Context(), retry.Never())))
		assert.Len(t, w.saw(), 1)
	})
}

func TestHeaderAndTrailerOptions(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.unary = func(ctx context.Context, n int) error {
			_ = grpc.SetHeader(ctx, metadata.Pairs("head", strconv.Itoa(n)))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("trail", strconv.Itoa(n)))
			if n == 1 {
				return status.Error(codes.Unavailable, "scripted")
			}
			return nil
		}
		var header, trailer metadata.MD
		require.NoError(t, w.call(t.Context(), grpc.Header(&header), grpc.Trailer(&trailer)))
		assert.Equal(t, []string{"2"}, header["head"])
		assert.Equal(t, []string{"2"}, trailer["trail"])
	})
}

func TestMetadataOut(t *testing.T) {
	mine := metadata.Pairs("mine", "1", "tandem-attempt", "7")
	send := func(h grpcclient.Headers) (all []seen) {
		inWorld(t, grpcclient.Config{Idempotent: always, Headers: h}, setup{}, func(t *testing.T, w *world) {
			w.unary = failingUntil(2)
			ctx := metadata.NewOutgoingContext(t.Context(), mine)
			require.NoError(t, w.call(ctx))
			assert.Equal(t, metadata.Pairs("mine", "1", "tandem-attempt", "7"), mine, "the caller's metadata is the caller's")
			all = w.saw()
			assert.Equal(t, []string{"1"}, all[1].metadata["mine"])
		})
		return all
	}
	assert.Equal(t, []string{"2"}, send(grpcclient.HeadersTandem)[1].metadata["tandem-attempt"], "ours, once")
	none := send(grpcclient.HeadersNone)[1].metadata
	assert.Equal(t, []string{"7"}, none["tandem-attempt"])
	assert.Empty(t, none["x-envoy-attempt-count"])
	mesh := send(grpcclient.HeadersMesh)
	assert.Empty(t, mesh[0].metadata["x-envoy-attempt-count"])
	assert.Equal(t, []string{"3000"}, mesh[0].metadata["x-envoy-expected-rq-timeout-ms"])
	assert.Equal(t, []string{"2"}, mesh[1].metadata["x-envoy-attempt-count"])
}

func TestConstructionReportsEveryFault(t *testing.T) {
	_, err := grpcclient.DialOptions(grpcclient.Config{
		Timeout: -1, AttemptTimeout: -1, Headers: 9, Retry: retry.Policy{MaxAttempts: -1},
	})
	require.Error(t, err)
	for _, field := range []string{"Timeout", "AttemptTimeout", "Headers", "MaxAttempts"} {
		assert.ErrorContains(t, err, field)
	}
	_, err = grpcclient.ServerOptions(grpcclient.InboundConfig{MaxTimeout: -1})
	assert.ErrorContains(t, err, "MaxTimeout")
}

// interceptor is Unary over c, to be called with an invoker of the test's own.
func interceptor(t testing.TB, c grpcclient.Config) grpc.UnaryClientInterceptor {
	t.Helper()
	i, err := grpcclient.Unary(c)
	require.NoError(t, err)
	return i
}

// A codec that merges, or an attempt that broke in the middle of decoding, leaves something in the reply.
func TestReplyHasNoLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reply testpb.SimpleResponse
		var trailer metadata.MD
		n := 0
		err := interceptor(t, grpcclient.Config{Idempotent: always})(t.Context(), unaryMethod, nil, &reply, nil,
			func(_ context.Context, _ string, _, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
				r := reply.(*testpb.SimpleResponse)
				if n++; n == 1 {
					r.Username = "left over"
					trailer = metadata.Pairs("left", "over")
					return status.Error(codes.Unavailable, "scripted")
				}
				assert.Nil(t, trailer)
				r.OauthScope = "second"
				return nil
			}, grpc.Trailer(&trailer))
		require.NoError(t, err)
		assert.Equal(t, "second", reply.GetOauthScope())
		assert.Empty(t, reply.GetUsername())
	})
}

// Where the caller's own deadline comes first there is nothing for a timer of ours to do.
func TestNoTimerBehindTheCallersDeadline(t *testing.T) {
	i := interceptor(t, grpcclient.Config{Retry: retry.Never()})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	invoke := func(got context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if got != ctx {
			return errors.New("another context")
		}
		return nil
	}
	allocs := testing.AllocsPerRun(100, func() { require.NoError(t, i(ctx, unaryMethod, nil, nil, nil, invoke)) })
	assert.LessOrEqual(t, allocs, 1.0)
}

func TestAllocations(t *testing.T) {
	i := interceptor(t, grpcclient.Config{Idempotent: always})
	bare := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	var header metadata.MD
	opts := []grpc.CallOption{grpc.Header(&header)}
	allocs := testing.AllocsPerRun(1000, func() {
		if err := i(parent, unaryMethod, nil, nil, nil, bare, opts...); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", allocs)
	assert.LessOrEqual(t, allocs, 5.0)
}
