package client

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// InboundConfig configures NewInbound. The zero InboundConfig is right in production.
type InboundConfig struct {
	// MaxTimeout bounds a handler, up to the header of its response, whose caller sent no deadline or a longer one.
	// Zero: only the caller's deadline counts.
	MaxTimeout time.Duration
	// OnMalformed is called for each header that could not be read and was ignored. Zero: nothing is called.
	OnMalformed func(ctx context.Context, e Malformed)
}

// Malformed tells of an inbound header that was ignored. Its value is not told: it may be anything.
type Malformed struct{ Header string }

// NewInbound returns the server half, to be put around a handler: the caller's deadline becomes the handler's, an
// expired request is refused with 504 before work starts, a request that is itself a retry is not retried further down,
// and a refusal (408, 429 or 500 and above) after this tier's own retries have ended tells the caller not to retry.
//
// What a caller sends can only shorten the handler's deadline. As the timeouts of a client do, it ends with the header of
// the response: whoever has written that, or has hijacked the connection, may go on for as long as the connection lives,
// so a stream or a long download is not cut in two. From then on the context of the request knows of no deadline, and a
// context made of it before with a timeout that was longer than the deadline has none either. Where the deadline passes,
// the context of the request says so; one that the handler made of it is cancelled, with context.DeadlineExceeded as its
// cause.
//
// The writer given to the handler flushes, hijacks and reads from files as the server's own does, and
// http.ResponseController finds that through Unwrap.
func NewInbound(c InboundConfig) (func(http.Handler) http.Handler, error) {
	if c.MaxTimeout < 0 {
		return nil, fmt.Errorf("client: MaxTimeout is negative: %v", c.MaxTimeout)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(next, w, r) })
	}, nil
}

// NoRetry tells the caller of the inbound request that ctx belongs to not to repeat it, whichever refusal it is answered
// with. It must be called before the header of the response is written, and does nothing outside of NewInbound.
func NoRetry(ctx context.Context) { call.InboundFrom(ctx).GiveUp() }

func (c *InboundConfig) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx := r.Context() //nolint:contextcheck // a handling is made of it
	if ctx.Err() != nil {
		refuseExpired(w)
		return
	}
	var until *handling
	if left, bounded := c.timeout(r); bounded {
		until = newHandling(ctx, left)
		defer until.end()
		ctx = until
	}
	ctx, in := call.WithInbound(ctx, c.attempt(r))
	next.ServeHTTP(wrap(w, in, until), r.WithContext(ctx))
}

// timeout is the shortest of what the headers say and of MaxTimeout.
func (c *InboundConfig) timeout(r *http.Request) (least time.Duration, bounded bool) {
	least, bounded = c.MaxTimeout, c.MaxTimeout > 0
	for _, name := range [...]string{call.HeaderTimeout, call.HeaderMeshTime} {
		if d, ok := read(c, r, name, call.ParseTimeout); ok && (!bounded || d < least) {
			least, bounded = d, true
		}
	}
	return least, bounded
}

// attempt is the highest number that the headers say, 1 where they say nothing.
func (c *InboundConfig) attempt(r *http.Request) int {
	highest := 1
	for _, name := range [...]string{call.HeaderAttempt, call.HeaderMeshTry} {
		if n, ok := read(c, r, name, call.ParseAttempt); ok {
			highest = max(highest, n)
		}
	}
	return highest
}

// read parses a header that may be there once. Anything else is ignored, and told.
func read[T any](c *InboundConfig, r *http.Request, name string, parse func(string) (T, bool)) (v T, ok bool) {
	values := r.Header[name]
	switch len(values) {
	case 0:
		return v, false
	case 1:
		if v, ok = parse(values[0]); ok {
			return v, true
		}
	}
	if c.OnMalformed != nil {
		defer func() { _ = recover() }() // a hook watches the request; it does not decide it
		c.OnMalformed(r.Context(), Malformed{Header: name})
	}
	return v, false
}

// refuseExpired answers in the form of RFC 9457.
func refuseExpired(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusGatewayTimeout)
	const problem = `{"title":"Gateway Timeout","status":504,"detail":"the caller's deadline passed before work began"}`
	_, _ = w.Write([]byte(problem + "\n")) // nobody may be there any more
}
