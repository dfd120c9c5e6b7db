package grpcclient_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tandemgo/tandem/client/grpcclient"
)

const unaryMethod = "/grpc.testing.TestService/UnaryCall"

// A world is a server that does what the test says, and a client of it, inside a bubble of virtual time.
type world struct {
	testpb.UnimplementedTestServiceServer

	unary  func(ctx context.Context, n int) error // what the nth call comes to; nil: success
	output func(n int, ss outputStream) error
	input  func(n int, ss inputStream) error
	duplex func(n int, ss duplexStream) error

	client testpb.TestServiceClient
	cc     *grpc.ClientConn

	began time.Time
	mu    sync.Mutex
	calls []seen
}

type (
	outputStream = grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]
	inputStream  = grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]
	duplexStream = grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]
)

// seen is one call as the server saw it.
type seen struct {
	at       time.Duration // since the world began
	left     time.Duration // of the deadline; zero: none
	metadata metadata.MD
}

func always(string) bool { return true }

// setup is what differs from world to world.
type setup struct {
	server []grpc.ServerOption
	client []grpc.DialOption
	dial   func(next func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error)
}

// inWorld runs play against a world of its own. What is still running afterwards fails the test.
func inWorld(t *testing.T, c grpcclient.Config, s setup, play func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{began: time.Now()}
		listener := bufconn.Listen(1 << 16)
		server := grpc.NewServer(s.server...)
		testpb.RegisterTestServiceServer(server, w)
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) })
		defer serving.Wait()
		defer server.Stop()

		dial := listener.DialContext
		if s.dial != nil {
			dial = s.dial(dial)
		}
		options, err := grpcclient.DialOptions(c)
		require.NoError(t, err)
		options = append(append(options, s.client...),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
		w.cc, err = grpc.NewClient("passthrough:///world", options...)
		require.NoError(t, err)
		defer func() { _ = w.cc.Close() }()
		w.client = testpb.NewTestServiceClient(w.cc)
		play(t, w)
	})
}

// see notes a call and returns its number, from 1.
func (w *world) see(ctx context.Context) int {
	md, _ := metadata.FromIncomingContext(ctx)
	call := seen{at: time.Since(w.began), metadata: md}
	if deadline, ok := ctx.Deadline(); ok {
		call.left = time.Until(deadline)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call)
	return len(w.calls)
}

func (w *world) saw() []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]seen(nil), w.calls...)
}

func (w *world) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	n := w.see(ctx)
	if w.unary != nil {
		if err := w.unary(ctx, n); err != nil {
			return nil, err
		}
	}
	return &testpb.SimpleResponse{Username: "answer"}, nil
}

func (w *world) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, ss outputStream) error {
	n := w.see(ss.Context())
	if string(r.GetPayload().GetBody()) != "request" {
		return status.Error(codes.InvalidArgument, "the request did not come along")
	}
	return w.output(n, ss)
}

func (w *world) StreamingInputCall(ss inputStream) error { return w.input(w.see(ss.Context()), ss) }

func (w *world) FullDuplexCall(ss duplexStream) error { return w.duplex(w.see(ss.Context()), ss) }

// call makes one unary call.
func (w *world) call(ctx context.Context, opts ...grpc.CallOption) error {
	_, err := w.client.UnaryCall(ctx, &testpb.SimpleRequest{}, opts...)
	return err
}

// open opens a stream on which only the server sends.
func (w *world) open(ctx context.Context) (grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], error) {
	return w.client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: payload("request")})
}

func payload(s string) *testpb.Payload { return &testpb.Payload{Body: []byte(s)} }

func message(s string) *testpb.StreamingOutputCallResponse {
	return &testpb.StreamingOutputCallResponse{Payload: payload(s)}
}

// failing is an answer of code that is the same for every call, with trailers and details.
func failing(code codes.Code, pairs ...string) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(pairs...))
		return status.Error(code, "scripted")
	}
}

// failingUntil fails with UNAVAILABLE until the nth call.
func failingUntil(n int) func(context.Context, int) error {
	return func(_ context.Context, i int) error {
		if i < n {
			return status.Error(codes.Unavailable, "scripted")
		}
		return nil
	}
}

func withRetryInfo(code codes.Code, d time.Duration) error {
	st, err := status.New(code, "scripted").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// hang answers when the caller has gone.
func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}
