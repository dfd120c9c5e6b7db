package grpcclient_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/retry"
)

// guarded is a world whose server has the server half.
func guarded(t *testing.T, c grpcclient.InboundConfig) setup {
	t.Helper()
	options, err := grpcclient.ServerOptions(c)
	require.NoError(t, err)
	return setup{server: options}
}

// below is a call that a handler makes, which always fails; it counts its attempts.
func below(ctx context.Context) (attempts int) {
	p := retry.Policy{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}
	_ = p.Do(ctx, func(context.Context) error { attempts++; return status.Error(codes.Unavailable, "below") })
	return attempts
}

func TestARetryIsNotRetriedFurtherDown(t *testing.T) {
	for name, c := range map[string]struct {
		pairs    []string
		attempts int
	}{
		"a first attempt":           {nil, 3},
		"tandem-attempt":            {[]string{"tandem-attempt", "2"}, 1},
		"a sidecar's":               {[]string{"x-envoy-attempt-count", "2"}, 1},
		"a sidecar's first":         {[]string{"x-envoy-attempt-count", "1"}, 3},
		"grpc's own":                {[]string{"grpc-previous-rpc-attempts", "1"}, 1},
		"grpc's own, none before":   {[]string{"grpc-previous-rpc-attempts", "0"}, 3},
		"the highest counts":        {[]string{"tandem-attempt", "2", "x-envoy-attempt-count", "1"}, 1},
		"malformed":                 {[]string{"tandem-attempt", "two"}, 3},
		"repeated":                  {[]string{"tandem-attempt", "2", "tandem-attempt", "3"}, 3},
		"more than fits an integer": {[]string{"grpc-previous-rpc-attempts", "99999999999999999999"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, grpcclient.Config{Headers: grpcclient.HeadersNone}, guarded(t, grpcclient.InboundConfig{}),
				func(t *testing.T, w *world) {
					var unary, stream int
					w.unary = func(ctx context.Context, _ int) error { unary = below(ctx); return nil }
					w.output = func(_ int, ss outputStream) error { stream = below(ss.Context()); return nil }
					ctx := metadata.AppendToOutgoingContext(t.Context(), c.pairs...)
					require.NoError(t, w.call(ctx))
					assert.Equal(t, c.attempts, unary)
					s, err := w.open(ctx)
					require.NoError(t, err)
					_, err = drain(s)
					require.NoError(t, err)
					assert.Equal(t, c.attempts, stream)
				})
		})
	}
}

func TestMalformedMetadataIsReported(t *testing.T) {
	var told []string
	c := grpcclient.InboundConfig{OnMalformed: func(_ context.Context, e grpcclient.Malformed) {
		told = append(told, e.Header)
		panic("contained")
	}}
	inWorld(t, grpcclient.Config{}, guarded(t, c), func(t *testing.T, w *world) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "tandem-attempt", "-2", "x-envoy-expected-rq-timeout-ms", "1s")
		require.NoError(t, w.call(ctx))
		assert.ElementsMatch(t, []string{"tandem-attempt", "x-envoy-expected-rq-timeout-ms"}, told)
	})
}

func TestATierThatGaveUpSaysSo(t *testing.T) {
	answers := map[string]struct {
		handle func(ctx context.Context) error
		told   bool
	}{
		"its retries have ended":            {func(ctx context.Context) error { below(ctx); return status.Error(codes.Unavailable, "") }, true},
		"but it has an answer":              {func(ctx context.Context) error { below(ctx); return nil }, false},
		"they have, and it says so plainly": {func(ctx context.Context) error { below(ctx); return errors.New("plain") }, true},
		"but it failed for another reason":  {func(ctx context.Context) error { below(ctx); return status.Error(codes.NotFound, "") }, false},
		"it failed by itself":               {func(context.Context) error { return status.Error(codes.Unavailable, "") }, false},
		"it does not want to be asked more": {func(ctx context.Context) error { grpcclient.NoRetry(ctx); return status.Error(codes.Internal, "") }, true},
	}
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			inWorld(t, grpcclient.Config{Retry: retry.Never()}, guarded(t, grpcclient.InboundConfig{}),
				func(t *testing.T, w *world) {
					w.unary = func(ctx context.Context, _ int) error { return c.handle(ctx) }
					w.output = func(_ int, ss outputStream) error { return c.handle(ss.Context()) }
					var trailer metadata.MD
					_ = w.call(t.Context(), grpc.Trailer(&trailer))
					s, err := w.open(t.Context())
					require.NoError(t, err)
					_, _ = drain(s)
					for _, md := range []metadata.MD{trailer, s.Trailer()} {
						assert.Equal(t, c.told, len(md["tandem-retry"]) == 1)
						assert.Equal(t, c.told, len(md["grpc-retry-pushback-ms"]) == 1)
					}
				})
		})
	}
	grpcclient.NoRetry(t.Context()) // nobody to tell
}

// Three tiers, the last one down: without the chain's rules it would see 3 x 3 calls.
func TestTiersDoNotMultiply(t *testing.T) {
	inWorld(t, grpcclient.Config{Idempotent: always}, guarded(t, grpcclient.InboundConfig{}), func(t *testing.T, front *world) {
		attempts := 0
		front.unary = func(ctx context.Context, _ int) error {
			attempts += below(ctx)
			return status.Error(codes.Unavailable, "below is down")
		}
		require.Error(t, front.call(t.Context()))
		assert.Equal(t, 3, attempts)
		assert.Len(t, front.saw(), 1)
	})
}

func TestDeadlinesOfHandlers(t *testing.T) {
	inWorld(t, grpcclient.Config{}, guarded(t, grpcclient.InboundConfig{MaxTimeout: time.Second}), func(t *testing.T, w *world) {
		var left time.Duration
		w.unary = func(ctx context.Context, _ int) error {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return nil
		}
		require.NoError(t, w.call(t.Context()))
		assert.Equal(t, time.Second, left, "shortened")
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.NoError(t, w.call(ctx))
		assert.Equal(t, 500*time.Millisecond, left, "never prolonged")
		require.NoError(t, w.call(metadata.AppendToOutgoingContext(ctx, "x-envoy-expected-rq-timeout-ms", "100")))
		assert.Equal(t, 100*time.Millisecond, left, "a sidecar may shorten it too")
		require.NoError(t, w.call(metadata.AppendToOutgoingContext(ctx, "x-envoy-expected-rq-timeout-ms", "9999")))
		assert.Equal(t, 500*time.Millisecond, left)
	})
}

func TestExpiredCallIsRefusedBeforeWork(t *testing.T) {
	worked := false
	s := guarded(t, grpcclient.InboundConfig{})
	late := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, cancel := context.WithDeadline(ctx, time.Now())
		defer cancel()
		return next(ctx, req)
	}
	s.server = append([]grpc.ServerOption{grpc.ChainUnaryInterceptor(late)}, s.server...)
	inWorld(t, grpcclient.Config{}, s, func(t *testing.T, w *world) {
		w.unary = func(context.Context, int) error { worked = true; return nil }
		err := w.call(t.Context())
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		assert.False(t, worked)
	})
}
