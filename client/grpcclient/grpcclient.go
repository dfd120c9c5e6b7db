package grpcclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/internal/keyed"
	"github.com/tandemgo/tandem/retry"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = call.NoTimeout

const maxTargets = 1024

// Config configures the client side. The zero Config is right in production.
type Config struct {
	// Timeout bounds a unary call with all its attempts and waits. Streams are not bounded. Zero: 10 s.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt of a unary call; of a stream that only the server sends on, up to its first
	// message; of any other stream, until it is opened. Zero: 3 s.
	AttemptTimeout time.Duration
	// Retry says how often to try. Its Retryable is asked about the status error of an attempt and may only forbid.
	// Zero fields: 3 attempts from 50 ms to 2 s, a budget for each connection target.
	Retry retry.Policy
	// Breakers guards each attempt by key. Zero: a group for each connection target.
	Breakers *breaker.Group
	// BreakerKey names the breaker of a full method. Zero: the full method.
	BreakerKey func(method string) string
	// Idempotent says whether a full method may happen twice. Zero: the idempotency_level of the method's descriptor
	// where it is registered, else not: then only what provably did not begin is retried.
	Idempotent func(method string) bool
	// Headers says what is told to the server about the attempt (the deadline travels as grpc-timeout in any case).
	// Zero: tandem-attempt on retries.
	Headers Headers
	// OnAttempt is called after each attempt, with the context of the call; for a stream when its first message has
	// come. A panic in it is swallowed. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e Attempt)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Headers says which metadata a client writes.
type Headers int

// The choices.
const (
	HeadersTandem Headers = iota // tandem-attempt, on retries
	HeadersNone                  // none: for partners outside
	HeadersMesh                  // Envoy's x-envoy-expected-rq-timeout-ms and x-envoy-attempt-count, for a sidecar
)

// An Attempt tells of one attempt that ended, or that the breaker refused.
type Attempt struct {
	Number   int
	Method   string
	Err      error // a status error, or nil
	Duration time.Duration
}

// DialOptions returns Unary and Stream, over one set of breakers and budgets, as dial options that are chained with
// others, and switches grpc's own retries off: those of a service config would multiply with these. What grpc repeats
// transparently, because the server has not seen it, stays.
func DialOptions(c Config) ([]grpc.DialOption, error) {
	p, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(p.unary),
		grpc.WithChainStreamInterceptor(p.stream),
		grpc.WithDisableRetry(),
	}, nil
}

// Unary returns the interceptor for unary calls. The connection should be made with grpc.WithDisableRetry.
func Unary(c Config) (grpc.UnaryClientInterceptor, error) {
	p, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	return p.unary, nil
}

// Stream returns the interceptor for streams: retried until the first message or header reached the application. The
// connection should be made with grpc.WithDisableRetry.
func Stream(c Config) (grpc.StreamClientInterceptor, error) {
	p, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	return p.stream, nil
}

// policy is a Config with its defaults filled in.
type policy struct {
	Config
	targets *keyed.Map[string, *target]
	recent  atomic.Pointer[target] // the one used last: most configs serve one connection
}

// target is what the calls to one target share.
type target struct {
	name     string
	budget   *retry.Budget
	breakers *breaker.Group
}

func newPolicy(c Config) (*policy, error) {
	var faults []error
	if c.Timeout < 0 {
		faults = append(faults, fmt.Errorf("grpcclient: Timeout %v is negative", c.Timeout))
	}
	if c.AttemptTimeout < 0 {
		faults = append(faults, fmt.Errorf("grpcclient: AttemptTimeout %v is negative", c.AttemptTimeout))
	}
	if c.Headers < HeadersTandem || c.Headers > HeadersMesh {
		faults = append(faults, fmt.Errorf("grpcclient: Headers %d is none of the choices", c.Headers))
	}
	if err := c.Retry.Validate(); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = call.DefaultTimeout
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = call.DefaultAttemptTimeout
	}
	if c.Idempotent == nil {
		c.Idempotent = declaredIdempotent
	}
	p := &policy{Config: c}
	p.targets = keyed.New(maxTargets, 0, p.newTarget, nil)
	return p, nil
}

// newTarget makes what is shared; neither config has a fault.
func (p *policy) newTarget(name string) *target {
	t := &target{name: name, breakers: p.Breakers}
	t.budget, _ = retry.NewBudget(retry.BudgetConfig{})
	if t.breakers == nil {
		lease := call.ProbeLease(p.AttemptTimeout)
		t.breakers, _ = breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{ProbeLease: lease}})
	}
	return t
}

// target returns what the calls over cc share with others to the same target.
func (p *policy) target(cc *grpc.ClientConn) *target {
	name := ""
	if cc != nil {
		name = cc.Target()
	}
	if t := p.recent.Load(); t != nil && t.name == name {
		return t
	}
	t := p.targets.Get(name)
	p.recent.Store(t)
	return t
}
