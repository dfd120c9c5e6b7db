package grpcclient_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/retry"
)

// real connects to address.
func real(t *testing.T, address string, c grpcclient.Config) *grpc.ClientConn {
	t.Helper()
	options, err := grpcclient.DialOptions(c)
	require.NoError(t, err)
	cc, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// A server that is replaced under a client with an open connection.
func TestServerIsReplaced(t *testing.T) {
	inbound, err := grpcclient.ServerOptions(grpcclient.InboundConfig{})
	require.NoError(t, err)
	serve := func(address string) (at string, stop func()) {
		var lc net.ListenConfig
		listener, err := lc.Listen(t.Context(), "tcp", address)
		require.NoError(t, err)
		w := &world{output: outputUntil(1, "a", "b")}
		server := grpc.NewServer(inbound...)
		testpb.RegisterTestServiceServer(server, w)
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) })
		return listener.Addr().String(), func() { server.Stop(); serving.Wait() }
	}
	address, stop := serve("127.0.0.1:0")
	client := testpb.NewTestServiceClient(real(t, address, grpcclient.Config{Idempotent: always}))
	_, err = client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.NoError(t, err)
	stop()
	_, stop = serve(address)
	defer stop()
	_, err = client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.NoError(t, err)
	s, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{Payload: payload("request")})
	require.NoError(t, err)
	got, err := drain(s)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, got)
}

// Nobody listens: even a call that may not happen twice is tried again, and ends within its deadline.
func TestNobodyListens(t *testing.T) {
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())

	cc := real(t, address, grpcclient.Config{Retry: retry.Policy{BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{})
	assert.Equal(t, codes.Unavailable, status.Code(err))
	why, ok := errors.AsType[*retry.Error](err)
	require.True(t, ok)
	assert.Equal(t, 3, why.Attempts)
}
