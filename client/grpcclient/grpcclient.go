// Package grpcclient gives a gRPC client and server the same policies that package client gives net/http.
package grpcclient

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = call.NoTimeout

// Config configures the client side. The zero Config is right in production.
type Config struct {
	Timeout        time.Duration  // bounds a unary call with all its attempts; streams are not bounded. Zero: 10 s
	AttemptTimeout time.Duration  // bounds one attempt of a unary call, or a stream up to its first message. Zero: 3 s
	Retry          retry.Policy   // Zero fields: 3 attempts from 50 ms to 2 s, a budget per connection target
	Breakers       *breaker.Group // guards each attempt by key. Zero: a group of its own
	// BreakerKey names the breaker of a full method. Zero: the full method.
	BreakerKey func(method string) string
	// Idempotent says whether a full method may happen twice. Zero: the idempotency_level of the method's descriptor
	// where it is registered, else not: then only what provably did not begin is retried.
	Idempotent func(method string) bool
	// Headers says what is told to the server about the attempt (the deadline travels as grpc-timeout in any case).
	// Zero: tandem-attempt on retries.
	Headers Headers
	// OnAttempt is called after each attempt. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e Attempt)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Headers says which metadata a client writes.
type Headers int

// The choices.
const (
	HeadersTandem Headers = iota
	HeadersNone
	HeadersMesh
)

// An Attempt tells of one attempt that ended.
type Attempt struct {
	Number   int
	Method   string
	Err      error // a status error, or nil
	Duration time.Duration
}

// DialOptions returns Unary and Stream as dial options, with grpc's own retries off.
func DialOptions(c Config) ([]grpc.DialOption, error) { panic("unwritten") }

// Unary returns the interceptor for unary calls.
func Unary(c Config) (grpc.UnaryClientInterceptor, error) { panic("unwritten") }

// Stream returns the interceptor for streams: retried until the first message or header reached the application.
func Stream(c Config) (grpc.StreamClientInterceptor, error) { panic("unwritten") }

// InboundConfig configures the server half.
type InboundConfig struct {
	// MaxTimeout bounds a handler whose caller sent no deadline, or a longer one. Zero: only the caller's deadline counts.
	MaxTimeout time.Duration
	// OnMalformed is called for each metadata key that could not be read and was ignored. Zero: nothing is called.
	OnMalformed func(ctx context.Context, e Malformed)
}

// Malformed tells of inbound metadata that was ignored.
type Malformed struct{ Header string }

// ServerOptions returns the server half as chained interceptors.
func ServerOptions(c InboundConfig) ([]grpc.ServerOption, error) { panic("unwritten") }
