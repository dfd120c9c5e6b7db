package client

import (
	"context"
	"net/http"
	"time"
)

// InboundConfig configures NewInbound. The zero InboundConfig is right in production.
type InboundConfig struct {
	// MaxTimeout bounds a handler whose caller sent no deadline, or a longer one. Zero: only the caller's deadline counts.
	MaxTimeout time.Duration
	// OnMalformed is called for each header that could not be read and was ignored. Zero: nothing is called.
	OnMalformed func(ctx context.Context, e Malformed)
}

// Malformed tells of an inbound header that was ignored. Its value is not told: it may be anything.
type Malformed struct{ Header string }

// NewInbound returns the server half: the caller's deadline becomes the handler's, an expired request is refused before
// work starts, a request that is itself a retry is not retried further down, and a refusal after this tier's own
// retries have ended tells the caller not to retry.
func NewInbound(c InboundConfig) (func(http.Handler) http.Handler, error) { panic("unwritten") }

// NoRetry tells the caller of the inbound request that ctx belongs to not to retry it, whatever its status.
func NoRetry(ctx context.Context) { panic("unwritten") }
