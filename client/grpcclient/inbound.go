package grpcclient

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
)

// metadataPrevious is how grpc's own retries count (gRFC A6): the attempts before this one.
const metadataPrevious = "grpc-previous-rpc-attempts"

// InboundConfig configures the server half. The zero InboundConfig is right in production.
type InboundConfig struct {
	// MaxTimeout bounds the handler of a unary call whose caller sent no deadline, or a longer one. Streams are bounded
	// by their caller only. Zero: only the caller's deadline counts.
	MaxTimeout time.Duration
	// OnMalformed is called for each metadata key that could not be read and was ignored. A panic in it is swallowed.
	// Zero: nothing is called.
	OnMalformed func(ctx context.Context, e Malformed)
}

// Malformed tells of inbound metadata that was ignored. Its value is not told: it may be anything.
type Malformed struct{ Header string }

// ServerOptions returns the server half as chained interceptors: a call whose deadline has passed is refused before work
// starts, a call that is itself a retry is not retried further down, and a failure after this tier's own retries have
// ended tells the caller not to retry. The deadline itself is grpc's to carry.
func ServerOptions(c InboundConfig) ([]grpc.ServerOption, error) {
	if c.MaxTimeout < 0 {
		return nil, fmt.Errorf("grpcclient: MaxTimeout %v is negative", c.MaxTimeout)
	}
	in := &inbound{c}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(in.unary), grpc.ChainStreamInterceptor(in.stream)}, nil
}

// NoRetry tells the caller of the inbound call that ctx belongs to not to retry it, whatever its status.
func NoRetry(ctx context.Context) { _ = grpc.SetTrailer(ctx, noRetry()) } // outside of a call there is nobody to tell

// noRetry is understood by this package and by grpc's own retries.
func noRetry() metadata.MD {
	return metadata.MD{call.MetadataRetry: {call.RetryNo}, call.MetadataPushback: {"-1"}}
}

type inbound struct{ InboundConfig }

// unary is a grpc.UnaryServerInterceptor.
func (i *inbound) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if limit := i.timeout(ctx, md); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	ctx, in := call.WithInbound(ctx, i.attempt(ctx, md))
	res, err := handle(ctx, req)
	i.answer(ctx, in, err)
	return res, err
}

// stream is a grpc.StreamServerInterceptor.
func (i *inbound) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx := ss.Context()
	if err := alive(ctx); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	ctx, in := call.WithInbound(ctx, i.attempt(ctx, md))
	err := handle(srv, &serverStream{ServerStream: ss, ctx: ctx})
	i.answer(ctx, in, err)
	return err
}

// serverStream is a stream with the context of its handler.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return s.ctx }

// alive refuses a call that nobody waits for any more.
func alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return status.FromContextError(context.DeadlineExceeded).Err()
	}
	return nil
}

// timeout is what bounds the handler beside grpc's own deadline: ours, and what a sidecar says. Zero: nothing.
func (i *inbound) timeout(ctx context.Context, md metadata.MD) time.Duration {
	limit := i.MaxTimeout
	if v := md[call.MetadataMeshTime]; len(v) > 0 {
		d, ok := call.ParseTimeout(v[0])
		if !ok || len(v) > 1 {
			i.malformed(ctx, call.MetadataMeshTime)
		} else if limit == 0 || d < limit {
			limit = d
		}
	}
	return limit
}

// attempt is the number of the caller's attempt: the highest that anybody on the way says.
func (i *inbound) attempt(ctx context.Context, md metadata.MD) int {
	n := 1
	for _, key := range [...]string{call.MetadataAttempt, call.MetadataMeshTry, metadataPrevious} {
		v := md[key]
		if len(v) == 0 || key == metadataPrevious && len(v) == 1 && v[0] == "0" {
			continue
		}
		told, ok := call.ParseAttempt(v[0])
		if !ok || len(v) > 1 {
			i.malformed(ctx, key)
			continue
		}
		if key == metadataPrevious && told < math.MaxInt32 {
			told++
		}
		n = max(n, told)
	}
	return n
}

func (i *inbound) malformed(ctx context.Context, key string) {
	if i.OnMalformed == nil {
		return
	}
	defer func() { _ = recover() }()
	i.OnMalformed(ctx, Malformed{Header: key})
}

// answer marks a failure that another attempt of the caller's cannot mend, since this tier's own could not. An answer
// about the request, such as NOT_FOUND, needs no mark.
func (i *inbound) answer(ctx context.Context, in *call.Inbound, err error) {
	if err == nil || !in.GaveUp() {
		return
	}
	code := statusOf(err).Code()
	if outcomeOf(code) == breaker.Failure || code == codes.ResourceExhausted || code == codes.Aborted {
		_ = grpc.SetTrailer(ctx, noRetry()) // fails only outside of a call
	}
}
