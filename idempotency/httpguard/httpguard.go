// Package httpguard is the Idempotency-Key header for net/http servers.
package httpguard

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

// Config configures New. The zero Config is right in production.
type Config struct {
	Methods         []string      // guarded methods. Zero: POST and PATCH
	Optional        bool          // a guarded request without a key passes unguarded. Zero: 400
	Lease           time.Duration // extended while the handler works. Zero: 30 s
	Retain          time.Duration // how long an answer is kept. Zero: 24 h
	Wait            time.Duration // how long a duplicate waits for the first answer. Zero: not; 409
	Park            bool          // as in idempotency.Config
	MaxRequestBytes int64         // larger request bodies are 413. Zero: 1 MiB
	MaxKeptBytes    int           // larger answers become tombstones. Zero: 256 KiB
	Detach          bool          // the handler goes on when the client goes away. Zero: its context ends
	// Keep says whether an answer is kept. Zero: 2xx, 3xx and the client errors that would happen again.
	Keep func(status int) bool
	// Headers of an answer that are kept beside the default ones. Set-Cookie never is. Zero: none.
	Headers []string
	// OnEvent is called with each decision. Zero: nothing is called.
	OnEvent func(ctx context.Context, e idempotency.Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// New returns a middleware. scope names the tenant and must not be nil: two tenants may use one key. The method and the
// path are part of the scope already. An error of scope is 403.
func New(s idempotency.Store, scope func(*http.Request) (string, error), c Config) (func(http.Handler) http.Handler, error) {
	panic("unwritten")
}
