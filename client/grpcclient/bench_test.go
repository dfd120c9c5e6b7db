package grpcclient_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/tandemgo/tandem/client/grpcclient"
)

// A unary call with everything on, over an invoker that does nothing.
func BenchmarkUnary(b *testing.B) {
	nothing := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	parent, cancel := context.WithCancel(b.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": parent} {
		b.Run(name, func(b *testing.B) {
			i := interceptor(b, grpcclient.Config{Idempotent: always})
			b.ReportAllocs()
			for b.Loop() {
				if err := i(ctx, unaryMethod, nil, nil, nil, nothing); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
