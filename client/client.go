package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/internal/keyed"
	"github.com/tandemgo/tandem/retry"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = call.NoTimeout

const defaultBodyIdleTimeout = 60 * time.Second

// Config configures a client. The zero Config is right in production.
type Config struct {
	// Base sends one attempt. It must honour the context of its request, as every http.RoundTripper has to. Zero: a
	// clone of http.DefaultTransport with 100 idle connections per host, a dial timeout of 1 s and HTTP/2 pings.
	Base http.RoundTripper
	// Timeout bounds a call with all its attempts and waits, up to the headers of the response; a sooner deadline of
	// the caller counts. Zero: 10 s.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt, the sending of its body included, up to the headers of its response. Who sends
	// large bodies sets it accordingly. Zero: 3 s.
	AttemptTimeout time.Duration
	// BodyIdleTimeout bounds each silence while the body of the response is read; the time that the reader takes
	// between two reads does not count. Zero: 60 s.
	BodyIdleTimeout time.Duration
	// Retry says how often to try. Its Retryable may only forbid: it is asked about what this package would repeat,
	// with a *StatusError where there was a response. Zero fields: 3 attempts from 50 ms to 2 s, a budget per key.
	Retry retry.Policy
	// RetryServerErrors also retries 500 Internal Server Error, which is usually deterministic. Zero: not.
	RetryServerErrors bool
	// Breakers guards each attempt by key. Zero: a group of this client's own.
	Breakers *breaker.Group
	// BreakerKey names the breaker, and the default budget, of a request. It should have few values: a route, never a
	// path. Zero: scheme and host.
	BreakerKey func(*http.Request) string
	// Headers says what is told to the server about deadline and attempt. Zero: tandem's own headers.
	Headers Headers
	// OnAttempt is called after each attempt, with the context of the call. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e Attempt)
	// Log gets one line per decision that matters: a retry at Info, a call given up at Warn. Zero: silent.
	Log *slog.Logger
}

// Headers says which headers a client writes.
type Headers int

// The choices.
const (
	HeadersTandem Headers = iota // Tandem-Timeout-Ms and, on retries, Tandem-Attempt
	HeadersNone                  // none: for partners outside
	HeadersMesh                  // Envoy's x-envoy-expected-rq-timeout-ms and, on retries, x-envoy-attempt-count, for a sidecar
)

// An Attempt tells of one attempt that ended, or that the breaker refused.
type Attempt struct {
	Number   int           // from 1
	Key      string        // of the breaker
	Status   int           // zero when there was no response
	Err      error         // nil when there was a response
	Duration time.Duration // up to the headers
}

// New returns a plain *http.Client over NewTransport. Its Timeout is left zero: that of net/http would also bound the
// body. The error joins every fault of the Config.
func New(c Config) (*http.Client, error) {
	t, err := NewTransport(c)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t}, nil
}

// NewTransport returns the round tripper of New, to be put under or over others. What makes one span or one signature
// per attempt belongs under it, as its Base. The error joins every fault of the Config.
func NewTransport(c Config) (*Transport, error) {
	t := &Transport{
		base:        c.Base,
		timeout:     c.Timeout,
		attempt:     c.AttemptTimeout,
		idle:        c.BodyIdleTimeout,
		policy:      c.Retry, // whose zero fields mean what they mean for a call
		serverError: c.RetryServerErrors,
		breakers:    c.Breakers,
		keyOf:       c.BreakerKey,
		headers:     c.Headers,
		onAttempt:   c.OnAttempt,
		log:         c.Log,
	}
	faults := []error{
		timeout(&t.timeout, "Timeout", call.DefaultTimeout),
		timeout(&t.attempt, "AttemptTimeout", call.DefaultAttemptTimeout),
		timeout(&t.idle, "BodyIdleTimeout", defaultBodyIdleTimeout),
		c.Retry.Validate(),
	}
	if c.Headers < HeadersTandem || c.Headers > HeadersMesh {
		faults = append(faults, fmt.Errorf("client: Headers: no such choice: %d", c.Headers))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if err := t.fill(); err != nil {
		return nil, err
	}
	return t, nil
}

// timeout gives *d its default, or finds fault with it.
func timeout(d *time.Duration, name string, zero time.Duration) error {
	if *d < 0 {
		return fmt.Errorf("client: %s is negative: %v; \"no timeout\" is client.NoTimeout", name, *d)
	}
	if *d == 0 {
		*d = zero
	}
	return nil
}

// fill makes the parts that the Config left to this package.
func (t *Transport) fill() (err error) {
	if t.base == nil {
		t.base = newBase()
	}
	t.targets = keyed.New(maxTargets, targetIdle, func(a address) *target { return newTarget(a, t.policy.Budget) }, nil)
	if t.breakers == nil {
		lease := call.ProbeLease(t.attempt)
		t.breakers, err = breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{ProbeLease: lease}})
	}
	return err
}

// newBase is http.DefaultTransport for calls between services: enough idle connections for a busy host (net/http keeps 2
// per host, which halves throughput), a dial that fails within a try, and pings that find a dead HTTP/2 connection.
func newBase() *http.Transport {
	base, ok := http.DefaultTransport.(*http.Transport)
	if ok {
		base = base.Clone()
	} else { // somebody put an instrumented one in its place; its settings cannot be read
		base = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
		}
	}
	base.DialContext = (&net.Dialer{Timeout: time.Second, KeepAlive: 30 * time.Second}).DialContext
	base.ForceAttemptHTTP2 = true // a dialer of one's own switches it off otherwise
	base.MaxIdleConnsPerHost = 100
	base.MaxIdleConns = 1000 // net/http: 100, which two busy hosts would take from each other
	base.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}
	return base
}
