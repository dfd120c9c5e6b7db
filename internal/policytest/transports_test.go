package policytest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// A transport connects a client with the given config to an upstream, for the length of a test, and returns what makes
// one call that may happen twice.
type transport func(
	t *testing.T, c config, g *breaker.Group, upstream func(context.Context) reply,
) func(context.Context) result

var transports = map[string]transport{"http": overHTTP, "grpc": overGRPC, "publish": overPublish}

// An upstream that answers requests in this process, as a round tripper does.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func overHTTP(
	t *testing.T, c config, g *breaker.Group, upstream func(context.Context) reply,
) func(context.Context) result {
	h, err := client.New(client.Config{
		Timeout: c.timeout, AttemptTimeout: c.attemptTimeout, Retry: c.retry, Breakers: g,
		Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			a := upstream(r.Context())
			if a.hang {
				return nil, r.Context().Err()
			}
			res := &http.Response{
				StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r,
				Body: io.NopCloser(strings.NewReader("answer")),
			}
			if a.fail {
				res.StatusCode = http.StatusServiceUnavailable
			}
			if a.after > 0 {
				res.Header.Set("Retry-After", strconv.Itoa(int(a.after/time.Second)))
			}
			return res, nil
		}),
	})
	require.NoError(t, err)
	return func(ctx context.Context) result {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://upstream/", http.NoBody)
		require.NoError(t, err)
		res, err := h.Do(r)
		if err != nil {
			return result{err: err}
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return result{
			ok:       res.StatusCode == http.StatusOK,
			answered: string(body) == "answer" && res.StatusCode == http.StatusServiceUnavailable,
			err:      err,
		}
	}
}

// health is an upstream over gRPC.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	upstream func(context.Context) reply
}

func (h *health) Check(
	ctx context.Context, _ *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	a := h.upstream(ctx)
	switch {
	case a.hang:
		return nil, status.FromContextError(ctx.Err()).Err()
	case a.fail:
		st := status.New(codes.Unavailable, "scripted")
		if a.after > 0 {
			var err error
			if st, err = st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(a.after)}); err != nil {
				return nil, err
			}
		}
		return nil, st.Err()
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func overGRPC(
	t *testing.T, c config, g *breaker.Group, upstream func(context.Context) reply,
) func(context.Context) result {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, &health{upstream: upstream})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	options, err := grpcclient.DialOptions(grpcclient.Config{
		Timeout: c.timeout, AttemptTimeout: c.attemptTimeout, Retry: c.retry, Breakers: g,
	})
	require.NoError(t, err)
	cc, err := grpc.NewClient("passthrough:///upstream", append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	)...)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cc.Close()
		server.Stop()
		serving.Wait()
	})
	return func(ctx context.Context) result {
		_, err := grpc_health_v1.NewHealthClient(cc).Check(retry.Idempotent(ctx), &grpc_health_v1.HealthCheckRequest{})
		st := status.Convert(err)
		return result{ok: err == nil, answered: st.Code() == codes.Unavailable && st.Message() == "scripted", err: err}
	}
}

var errUpstream = errors.New("scripted")

// sender is an upstream that stores messages.
type sender func(context.Context) reply

func (s sender) Send(ctx context.Context, _ []*messaging.Message) error {
	a := s(ctx)
	switch {
	case a.hang:
		return ctx.Err()
	case a.fail && a.after > 0:
		return retry.After(errUpstream, a.after)
	case a.fail:
		return errUpstream
	}
	return nil
}

func (sender) Features() messaging.Features {
	return messaging.Features{Confirm: messaging.ConfirmMemory}
}

func overPublish(
	t *testing.T, c config, g *breaker.Group, upstream func(context.Context) reply,
) func(context.Context) result {
	p, err := messaging.NewPublisher(sender(upstream), messaging.PublisherConfig{
		Timeout: c.timeout, AttemptTimeout: c.attemptTimeout, Retry: c.retry, Breakers: g,
	})
	require.NoError(t, err)
	return func(ctx context.Context) result {
		err := p.Publish(ctx, &messaging.Message{Topic: "upstream"})
		return result{ok: err == nil, answered: errors.Is(err, errUpstream), err: err}
	}
}
