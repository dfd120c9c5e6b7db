package benchmarks

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
)

// answer is a transport that does no I/O: what remains is the price of the policies.
type answer struct{}

func (answer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// byHand is the loop a careful team writes: three tries, a two-step breaker, a timeout that rides on the body.
type byHand struct {
	base    http.RoundTripper
	breaker *gobreaker.TwoStepCircuitBreaker[any]
}

type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c cancelOnClose) Close() error {
	c.cancel()
	return c.ReadCloser.Close()
}

func (h byHand) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	for range 3 {
		done, denied := h.breaker.Allow()
		if denied != nil {
			return nil, denied
		}
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		resp, err = h.base.RoundTrip(r.WithContext(ctx))
		done(err)
		if err == nil && resp.StatusCode < 500 {
			resp.Body = cancelOnClose{resp.Body, cancel}
			return resp, nil
		}
		cancel()
		if resp != nil {
			resp.Body.Close()
		}
	}
	return resp, err
}

func BenchmarkHTTP(b *testing.B) {
	tandem := func(c client.Config) http.RoundTripper {
		c.Base = answer{}
		t, err := client.NewTransport(c)
		if err != nil {
			b.Fatal(err)
		}
		return t
	}
	cases := []struct {
		name string
		rt   http.RoundTripper
	}{
		{"bare", answer{}},
		{"tandem/defaults", tandem(client.Config{})},
		{"tandem/headers-off", tandem(client.Config{Headers: client.HeadersNone})},
		{"tandem/retry-only", tandem(client.Config{
			Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, BodyIdleTimeout: client.NoTimeout,
			Headers: client.HeadersNone, Breakers: breaker.Off(),
		})},
		{"by-hand", byHand{answer{}, gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{Interval: 10 * time.Second, BucketPeriod: time.Second})}},
		{"failsafe/retry", failsafehttp.NewRoundTripper(answer{}, failsafehttp.NewRetryPolicyBuilder().Build())},
		{"failsafe/retry-breaker-timeout", failsafehttp.NewRoundTripper(answer{},
			failsafehttp.NewRetryPolicyBuilder().Build(),
			circuitbreaker.NewWithDefaults[*http.Response](),
			timeout.New[*http.Response](3*time.Second))},
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://service.internal/path", nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
	}
}
