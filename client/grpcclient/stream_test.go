package grpcclient_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/retry"
)

const outputMethod = "/grpc.testing.TestService/StreamingOutputCall"

// outputUntil fails with UNAVAILABLE until the nth stream, which sends the given messages.
func outputUntil(n int, messages ...string) func(int, outputStream) error {
	return func(i int, ss outputStream) error {
		if i < n {
			return status.Error(codes.Unavailable, "scripted")
		}
		for _, m := range messages {
			if err := ss.Send(message(m)); err != nil {
				return err
			}
		}
		return nil
	}
}

// drain receives to the end.
func drain(s grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]) (got []string, err error) {
	for {
		m, err := s.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return got, err
		}
		got = append(got, string(m.GetPayload().GetBody()))
	}
}

func TestStreamIsRetriedUntilItsFirstMessage(t *testing.T) {
	var told []grpcclient.Attempt
	c := grpcclient.Config{
		Idempotent: always,
		OnAttempt:  func(_ context.Context, e grpcclient.Attempt) { told = append(told, e) },
	}
	inWorld(t, c, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(3, "a", "b")
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b"}, got)
		require.Len(t, w.saw(), 3)
		assert.Equal(t, []string{"3"}, w.saw()[2].metadata["tandem-attempt"])
		require.Len(t, told, 3)
		assert.Equal(t, codes.Unavailable, status.Code(told[1].Err))
		assert.NoError(t, told[2].Err)
	})
}

func TestStreamIsNotRetriedAfterItsFirstMessage(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error {
			_ = ss.Send(message("a"))
			return status.Error(codes.Unavailable, "scripted")
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		assert.Equal(t, []string{"a"}, got, "no message is given twice")
		assert.Equal(t, codes.Unavailable, status.Code(err))
		_, wrapped := errors.AsType[*retry.Error](err)
		assert.False(t, wrapped, "it is passed on as it is")
		assert.Len(t, w.saw(), 1)
	})
}

func TestStreamIsNotRetriedOnceItsHeaderWasAsked(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error {
			_ = ss.SendHeader(metadata.Pairs("head", "1"))
			return status.Error(codes.Unavailable, "scripted")
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		md, err := s.Header()
		require.NoError(t, err)
		assert.Equal(t, []string{"1"}, md["head"])
		_, err = drain(s)
		assert.Equal(t, codes.Unavailable, status.Code(err))
		assert.Len(t, w.saw(), 1)
	})
}

func TestStreamGivesUp(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(9)
		s, err := w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		assert.Equal(t, codes.Unavailable, status.Code(err))
		why, ok := errors.AsType[*retry.Error](err)
		require.True(t, ok)
		assert.Equal(t, retry.Attempts, why.Reason)
		assert.Equal(t, 3, why.Attempts)
		_, again := s.Recv()
		assert.Equal(t, err, again, "the end of a stream stays its end")
	})
}

func TestStreamThatMayNotHappenTwice(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(2, "a")
		s, err := w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		assert.Equal(t, codes.Unavailable, status.Code(err))
		assert.Len(t, w.saw(), 1)
	})
}

func TestStreamWithoutMessages(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(1)
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		require.NoError(t, err)
		assert.Empty(t, got)
	})
}

// A stream that the client sends on works as it would without retries, and its error is the server's.
func TestClientStreamsPassThrough(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.input = func(_ int, ss inputStream) error {
			for n := int32(0); ; n++ {
				if _, err := ss.Recv(); errors.Is(err, io.EOF) {
					return ss.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
				} else if err != nil {
					return err
				}
			}
		}
		up, err := w.client.StreamingInputCall(t.Context())
		require.NoError(t, err)
		for range 3 {
			time.Sleep(5 * time.Second) // longer than any attempt timeout: how long it takes is for the client to say
			require.NoError(t, up.Send(&testpb.StreamingInputCallRequest{Payload: payload("part")}))
		}
		sum, err := up.CloseAndRecv()
		require.NoError(t, err)
		assert.EqualValues(t, 3, sum.GetAggregatedPayloadSize())

		w.duplex = func(int, duplexStream) error { return status.Error(codes.Unavailable, "scripted") }
		both, err := w.client.FullDuplexCall(t.Context())
		require.NoError(t, err)
		_, err = both.Recv()
		assert.Equal(t, codes.Unavailable, status.Code(err))
		why, ok := errors.AsType[*retry.Error](err)
		require.True(t, ok)
		assert.Equal(t, retry.Stopped, why.Reason)
		assert.Len(t, w.saw(), 2)
	})
}

func TestDuplex(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.duplex = func(_ int, ss duplexStream) error {
			for {
				m, err := ss.Recv()
				if err != nil {
					return nil //nolint:nilerr // the end of what the client sends
				}
				if err := ss.Send(message(string(m.GetPayload().GetBody()))); err != nil {
					return err
				}
			}
		}
		s, err := w.client.FullDuplexCall(t.Context())
		require.NoError(t, err)
		go func() {
			for range 100 {
				_ = s.Send(&testpb.StreamingOutputCallRequest{Payload: payload("ping")})
			}
			_ = s.CloseSend()
		}()
		n := 0
		for ; ; n++ {
			if _, err = s.Recv(); err != nil {
				break
			}
		}
		assert.Equal(t, io.EOF, err)
		assert.Equal(t, 100, n)
	})
}

func TestStreamOutlivesTheAttemptTimeout(t *testing.T) {
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error {
			for range 60 {
				if err := ss.Send(message("tick")); err != nil {
					return err
				}
				time.Sleep(time.Minute)
			}
			return nil
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		require.NoError(t, err)
		assert.Len(t, got, 60)
		assert.Zero(t, w.saw()[0].left, "no deadline goes out for a stream whose caller has none")
	})
}

func TestStreamSilentBeforeItsFirstMessage(t *testing.T) {
	silentOnce := func(n int, ss outputStream) error {
		if n == 1 {
			<-ss.Context().Done()
			return ss.Context().Err()
		}
		return ss.Send(message("a"))
	}
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = silentOnce
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		require.NoError(t, err)
		assert.Equal(t, []string{"a"}, got)
		assert.GreaterOrEqual(t, w.saw()[1].at, 3*time.Second)
	})
	inWorld(t, grpcclient.Config{}, setup{}, func(t *testing.T, w *world) {
		w.output = silentOnce
		s, err := w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err), "our timeout, though grpc saw a cancelled context")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	inWorld(t, grpcclient.Config{AttemptTimeout: grpcclient.NoTimeout}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error {
			time.Sleep(time.Hour)
			return ss.Send(message("at last"))
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		got, err := drain(s)
		require.NoError(t, err)
		assert.Equal(t, []string{"at last"}, got)
	})
}

// The bubble fails a test that leaves a goroutine or a context behind.
func TestStreamThatIsCancelledLeavesNothing(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 1}})
	require.NoError(t, err)
	ended := make(chan struct{}, 2)
	inWorld(t, grpcclient.Config{Breakers: group}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error {
			<-ss.Context().Done()
			ended <- struct{}{}
			return ss.Context().Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		s, err := w.open(ctx)
		require.NoError(t, err)
		time.AfterFunc(time.Second, cancel)
		_, err = s.Recv()
		assert.Equal(t, codes.Canceled, status.Code(err))
		assert.Equal(t, time.Second, time.Since(w.began))

		ctx, cancel = context.WithCancel(t.Context())
		_, err = w.open(ctx)
		require.NoError(t, err)
		synctest.Wait()
		cancel() // and nobody receives
		synctest.Wait()
		assert.Len(t, ended, 2)
		time.Sleep(time.Minute)
		assert.Equal(t, breaker.Closed, group.Get(outputMethod).State())
	})
}

// Each attempt of a stream is judged by its first message.
func TestStreamBreaker(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 3, Probes: 1}})
	require.NoError(t, err)
	inWorld(t, grpcclient.Config{Breakers: group, Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(4, "a")
		s, err := w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		require.Error(t, err)
		assert.Equal(t, breaker.Open, group.Get(outputMethod).State())
		_, err = w.open(t.Context())
		assert.ErrorIs(t, err, breaker.ErrOpen)
		assert.Equal(t, codes.Unavailable, status.Code(err))
		assert.Len(t, w.saw(), 3)

		time.Sleep(10 * time.Second)
		s, err = w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		require.NoError(t, err)
		assert.Equal(t, breaker.Closed, group.Get(outputMethod).State())
	})
}

// A probe that nobody receives from, or that nobody answers, does not hold its slot for ever.
func TestStreamGivesItsProbeBack(t *testing.T) {
	group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Probes: 1, ProbeLease: time.Hour}})
	require.NoError(t, err)
	const method = "/grpc.testing.TestService/FullDuplexCall"
	inWorld(t, grpcclient.Config{Breakers: group}, setup{}, func(t *testing.T, w *world) {
		w.duplex = func(_ int, ss duplexStream) error { <-ss.Context().Done(); return ss.Context().Err() }
		group.Get(method).Trip(time.Second)
		time.Sleep(time.Second + 1)
		_, err := w.client.FullDuplexCall(t.Context())
		require.NoError(t, err)
		_, err = w.client.FullDuplexCall(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen, "one probe at a time")
		time.Sleep(3 * time.Second)
		_, err = w.client.FullDuplexCall(t.Context())
		require.NoError(t, err)
	})
}

func TestStreamObeysTheServersWord(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = func(n int, ss outputStream) error {
			if n > 1 {
				ss.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "-1"))
				return status.Error(codes.Unavailable, "scripted")
			}
			ss.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "500"))
			return status.Error(codes.ResourceExhausted, "scripted")
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		_, err = drain(s)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Len(t, w.saw(), 2)
		assert.GreaterOrEqual(t, w.saw()[1].at, 500*time.Millisecond)
	})
}

func TestCallerCancelsTheWaitOfAStream(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = func(_ int, ss outputStream) error { return withRetryInfo(codes.Unavailable, 5*time.Second) }
		ctx, cancel := context.WithCancel(t.Context())
		s, err := w.open(ctx)
		require.NoError(t, err)
		time.AfterFunc(time.Second, cancel)
		_, err = s.Recv()
		assert.Equal(t, codes.Canceled, status.Code(err))
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, time.Second, time.Since(w.began))
	})
}

// What the application does beside receiving, at any moment, neither blocks for ever nor is lost.
func TestSendBesideReceive(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, setup{}, func(t *testing.T, w *world) {
		w.output = outputUntil(3, "a")
		desc := &grpc.StreamDesc{ServerStreams: true}
		s, err := w.cc.NewStream(t.Context(), desc, outputMethod)
		require.NoError(t, err)
		go func() {
			time.Sleep(time.Second)
			assert.NoError(t, s.SendMsg(&testpb.StreamingOutputCallRequest{Payload: payload("request")}))
			assert.NoError(t, s.CloseSend())
		}()
		var m testpb.StreamingOutputCallResponse
		require.NoError(t, s.RecvMsg(&m))
		assert.Equal(t, "a", string(m.GetPayload().GetBody()))
		assert.Equal(t, io.EOF, s.RecvMsg(&m))
		assert.Len(t, w.saw(), 3)
	})
}

func TestMessageThatCannotBeSent(t *testing.T) {
	s := setup{client: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1))}}
	inWorld(t, grpcclient.Config{Idempotent: always}, s, func(t *testing.T, w *world) {
		_, err := w.open(t.Context())
		assert.Equal(t, codes.ResourceExhausted, status.Code(err))
		assert.LessOrEqual(t, len(w.saw()), 1, "another attempt would not help")
	})
}

// A fake is what a streamer of the test's own returns: it has one message, after a while, whatever its context says.
type fake struct {
	grpc.ClientStream
	ctx      context.Context
	after    time.Duration
	received int
}

func (f *fake) RecvMsg(any) error {
	if f.received++; f.received > 1 {
		return io.EOF
	}
	time.Sleep(f.after)
	return nil
}

func (f *fake) SendMsg(any) error { return nil }

// Trailer may be called when a receive has failed; before that grpc may write it.
func (f *fake) Trailer() metadata.MD {
	if f.received < 2 {
		panic("Trailer of a stream that has not ended")
	}
	return nil
}

// fakes opens a stream over a fake for each wait; it returns the fakes that were opened.
func fakes(t *testing.T, waits ...time.Duration) (s grpc.ClientStream, opened *[]*fake) {
	t.Helper()
	i, err := grpcclient.Stream(grpcclient.Config{Idempotent: always})
	require.NoError(t, err)
	opened = new([]*fake)
	s, err = i(t.Context(), &grpc.StreamDesc{ServerStreams: true}, nil, outputMethod,
		func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
			f := &fake{ctx: ctx, after: waits[len(*opened)]}
			*opened = append(*opened, f)
			return f, nil
		})
	require.NoError(t, err)
	return s, opened
}

// A message that comes at the moment of the timeout belongs to a stream that is being cancelled.
func TestMessageThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, opened := fakes(t, 4*time.Second, 0)
		require.NoError(t, s.RecvMsg(nil))
		assert.Len(t, *opened, 2)
	})
}

// The request is kept for another attempt, and no longer: a stream may live for hours.
func TestRequestIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := fakes(t, 0)
		request := &testpb.SimpleRequest{Payload: payload("large")}
		kept := weak.Make(request)
		require.NoError(t, s.SendMsg(request))
		runtime.GC()
		require.NotNil(t, kept.Value())
		require.NoError(t, s.RecvMsg(nil))
		runtime.GC()
		require.Nil(t, kept.Value())
		require.ErrorIs(t, s.RecvMsg(nil), io.EOF)
	})
}

// A stream that is opened in the instant in which its time runs out is cut, and grpc is not done with it.
func TestStreamOpenedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		i, err := grpcclient.Stream(grpcclient.Config{Idempotent: always})
		require.NoError(t, err)
		var trailer metadata.MD
		_, err = i(t.Context(), &grpc.StreamDesc{ClientStreams: true}, nil, outputMethod,
			func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				opened++
				time.Sleep(3*time.Second + 1)
				go func() { // as grpc does when the context of a stream ends
					<-ctx.Done()
					for _, o := range opts {
						if o, ok := o.(grpc.TrailerCallOption); ok {
							*o.TrailerAddr = metadata.Pairs("written", "late")
						}
					}
				}()
				return &fake{}, nil
			}, grpc.Trailer(&trailer))
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.Equal(t, 1, opened)
	})
}

func TestContextOfAnAttemptEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, opened := fakes(t, 0)
		require.NoError(t, s.RecvMsg(nil))
		ctx := (*opened)[0].ctx
		time.Sleep(time.Hour)
		require.NoError(t, ctx.Err())
		require.ErrorIs(t, s.RecvMsg(nil), io.EOF)
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
	})
}

// Whatever servers and callers do at once, no attempt touches another, nothing is left running and no permit is lost.
func TestStreamsInDisorder(t *testing.T) {
	for seed := range uint64(10) {
		group, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{
			Consecutive: 3, OpenFor: 10 * time.Millisecond, ProbeLease: time.Hour,
		}})
		require.NoError(t, err)
		c := grpcclient.Config{Idempotent: always, AttemptTimeout: 20 * time.Millisecond, Breakers: group}
		inWorld(t, c, setup{}, func(t *testing.T, w *world) {
			d := &dice{rng: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // a test
			w.output = d.output
			var calls sync.WaitGroup
			for range 40 {
				calls.Go(func() { d.play(t.Context(), w) })
			}
			calls.Wait()
			time.Sleep(time.Minute)
			d.calm.Store(true)
			for range 3 {
				s, err := w.open(t.Context())
				require.NoError(t, err)
				_, err = drain(s)
				require.NoError(t, err)
			}
			require.Equal(t, breaker.Closed, group.Get(outputMethod).State(), "seed %d", seed)
		})
	}
}

// dice decide what servers and callers do.
type dice struct {
	calm atomic.Bool // servers do well from now on
	mu   sync.Mutex
	rng  *rand.Rand
}

func (d *dice) roll(sides int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(sides)
}

// soon is around the attempt timeout.
func (d *dice) soon() time.Duration { return time.Duration(d.roll(25)) * time.Millisecond }

func (d *dice) output(_ int, ss outputStream) error {
	if d.calm.Load() {
		return ss.Send(message("m"))
	}
	switch d.roll(4) {
	case 0:
		return status.Error(codes.Unavailable, "scripted")
	case 1:
		ss.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "1"))
		return status.Error(codes.ResourceExhausted, "scripted")
	case 2:
		time.Sleep(d.soon())
	}
	for range d.roll(5) {
		if err := ss.Send(message("m")); err != nil {
			return err
		}
		time.Sleep(d.soon())
	}
	return nil
}

// play makes one call, which its caller may leave at any moment.
func (d *dice) play(ctx context.Context, w *world) {
	ctx, cancel := context.WithTimeout(ctx, 2*d.soon()+time.Millisecond)
	defer cancel()
	var header, trailer metadata.MD
	s, err := w.client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: payload("request")},
		grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return
	}
	if d.roll(3) == 0 {
		go func() { _, _ = s.Header() }()
	}
	if d.roll(3) == 0 {
		time.AfterFunc(d.soon(), cancel)
	}
	_, _ = drain(s)
	_ = s.Trailer()
	_ = len(header) + len(trailer) // for the race detector
}
