package grpcclient_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/retry"
)

// starting is a service that needs two calls to wake up.
type starting struct {
	grpc_health_v1.UnimplementedHealthServer
	calls int
}

func (s *starting) Check(
	context.Context, *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	if s.calls++; s.calls < 3 {
		return nil, status.Error(codes.Unavailable, "still starting")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func Example() {
	// The server half: deadlines, chain stop, and the word that ends retries.
	inbound, err := grpcclient.ServerOptions(grpcclient.InboundConfig{})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(inbound...)
	grpc_health_v1.RegisterHealthServer(server, &starting{})
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	// The client half: the zero Config is right in production.
	outbound, err := grpcclient.DialOptions(grpcclient.Config{})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///starting", append(outbound,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	)...)
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = conn.Close() }()

	// The health service does not say in its .proto file that Check may happen twice; its caller knows.
	ctx := retry.Idempotent(context.Background())
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	// Output: SERVING <nil>
}
