//go:build !race

package client_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
)

// What a call costs when all goes well, in allocations over the bare base.
func TestAllocations(t *testing.T) {
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
	})
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, ctx := range []context.Context{context.Background(), cancellable} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://service.test/", nil)
		require.NoError(t, err)
		r.Header.Set("Accept", "application/json")
		cost := func(rt http.RoundTripper) float64 {
			return testing.AllocsPerRun(1000, func() {
				res, err := rt.RoundTrip(r)
				if err != nil || res.Body.Close() != nil {
					t.Error(err)
				}
			})
		}
		bare := cost(base)
		for _, c := range []struct {
			name   string
			config client.Config
			most   float64
		}{
			{"retry only", client.Config{
				Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, BodyIdleTimeout: client.NoTimeout,
				Breakers: breaker.Off(), Headers: client.HeadersNone,
			}, 1},
			{"headers off", client.Config{Headers: client.HeadersNone}, 8},
			{"defaults", client.Config{}, 12},
		} {
			over := cost(transport(t, base, c.config)) - bare
			t.Logf("%s: %v over bare", c.name, over)
			require.LessOrEqual(t, over, c.most, c.name)
		}
	}
}
