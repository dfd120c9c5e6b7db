package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/retry"
)

// written is a bucket that takes whatever is written to it.
type written struct {
	jetstream.KeyValue
	last record
}

func (w *written) Update(_ context.Context, _ string, value []byte, revision uint64) (uint64, error) {
	return revision + 1, json.Unmarshal(value, &w.last)
}

// Only payments' own word makes an order charged or declined. After anything else nobody knows, and it stays placed.
func TestPaymentOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	const hangs, breaks = -1, -2
	for status, want := range map[int]state{
		201: charged, 402: declined,
		200: placed, 202: placed, 301: placed, 400: placed, 401: placed, 403: placed, 404: placed, 409: placed, 410: placed,
		422: placed, 429: placed, 500: placed, 502: placed, 503: placed, 504: placed, hangs: placed, breaks: placed,
	} {
		var keys []string
		payments := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // until then the server does not notice who has gone
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			switch status {
			case breaks:
				panic(http.ErrAbortHandler)
			case hangs:
				<-r.Context().Done()
			default:
				w.WriteHeader(status)
			}
		}))
		bucket := &written{}
		o := &orders{
			journal:  &journal{kv: bucket, retry: retry.Never(), try: time.Second},
			payments: &paymentsClient{http: payments.Client(), url: payments.URL},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if status == hangs {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		got, err := o.charge(ctx, record{ID: "1", State: placed, revision: 1})
		cancel()
		payments.Close()
		require.Equal(t, want, got.State, "payments answered %d", status)
		require.Equal(t, want == placed, err != nil, "payments answered %d", status)
		require.Equal(t, want != placed, bucket.last.State == want, "payments answered %d", status)
		for _, k := range keys {
			require.Equal(t, "1", k)
		}
	}
}
