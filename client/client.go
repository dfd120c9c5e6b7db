// Package client is net/http's client with timeouts, retries, budgets and breakers.
package client

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = call.NoTimeout

// Config configures a client. The zero Config is right in production.
type Config struct {
	// Base sends one attempt. Zero: a clone of http.DefaultTransport with 100 idle connections per host, a dial timeout
	// of 1 s and HTTP/2 pings.
	Base http.RoundTripper
	// Timeout bounds a call with all its attempts and waits, up to the headers of the response. Zero: 10 s.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt, up to the headers of its response. Zero: 3 s.
	AttemptTimeout time.Duration
	// BodyIdleTimeout bounds each silence while the body of the response is read. Zero: 60 s.
	BodyIdleTimeout time.Duration
	// Retry says how often to try. Zero fields: 3 attempts from 50 ms to 2 s, a budget per host.
	Retry retry.Policy
	// RetryServerErrors also retries 500 Internal Server Error, which is usually deterministic. Zero: not.
	RetryServerErrors bool
	// Breakers guards each attempt by key. Zero: a group of this client's own.
	Breakers *breaker.Group
	// BreakerKey names the breaker, and the default budget, of a request. Zero: scheme and host.
	BreakerKey func(*http.Request) string
	// Headers says what is told to the server about deadline and attempt. Zero: tandem's own headers.
	Headers Headers
	// OnAttempt is called after each attempt. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e Attempt)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Headers says which headers a client writes.
type Headers int

// The choices.
const (
	HeadersTandem Headers = iota // Tandem-Timeout-Ms and, on retries, Tandem-Attempt
	HeadersNone                  // none: for partners outside
	HeadersMesh                  // Envoy's x-envoy-expected-rq-timeout-ms and x-envoy-attempt-count, for a sidecar
)

// An Attempt tells of one attempt that ended.
type Attempt struct {
	Number   int
	Key      string // of the breaker
	Status   int    // zero when there was no response
	Err      error
	Duration time.Duration
}

// New returns a plain *http.Client over NewTransport. Its Timeout is left zero: that of net/http would also bound the body.
func New(c Config) (*http.Client, error) { panic("unwritten") }

// A Transport is an http.RoundTripper. Any number of goroutines may use it at once.
type Transport struct{ base http.RoundTripper }

// NewTransport returns the round tripper of New, to be put under or over others.
func NewTransport(c Config) (*Transport, error) { panic("unwritten") }

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) { panic("unwritten") }

// CloseIdleConnections closes the idle connections of the base transport.
func (t *Transport) CloseIdleConnections() { panic("unwritten") }
