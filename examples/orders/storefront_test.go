package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/idempotency/httpguard"
	"github.com/tandemgo/tandem/idempotency/memstore"
)

// answersOf is an OrderService that gives one answer after the other.
type answersOf struct {
	ordersproto.OrderServiceClient
	answers []any // an error or a state
	asked   []string
}

func (a *answersOf) CreateOrder(_ context.Context, in *ordersproto.CreateOrderRequest, _ ...grpc.CallOption) (*ordersproto.Order, error) {
	a.asked = append(a.asked, in.GetIdempotencyKey())
	next := a.answers[0]
	a.answers = a.answers[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return &ordersproto.Order{OrderId: "1", State: next.(ordersproto.State)}, nil
}

func TestStorefrontAnswers(t *testing.T) {
	t.Parallel()
	away := status.Error(codes.Unavailable, "orders is away")
	late := status.Error(codes.DeadlineExceeded, "too late")
	const done, declined = ordersproto.State_STATE_PUBLISHED, ordersproto.State_STATE_DECLINED
	for _, c := range []struct {
		what    string
		answers []any
		keys    []string
		want    []int
		asked   []string
	}{
		{
			"nothing definite is not kept, and asked again until it is; that is kept",
			[]any{away, late, ordersproto.State_STATE_PLACED, ordersproto.State_STATE_CHARGED, done},
			[]string{"k", "k", "k", "k", "k", "k"},
			[]int{503, 503, 503, 503, 201, 201},
			[]string{"k", "k", "k", "k", "k"},
		},
		{"a decline is definite", []any{declined}, []string{"k", "k"}, []int{402, 402}, []string{"k"}},
		{"a quoted key is the bare one", []any{away, done}, []string{`"k"`, "k", `"k"`}, []int{503, 201, 201}, []string{"k", "k"}},
		{"a key that would need quoting", nil, []string{`"a b"`, `a"b`, "", "a,b"}, []int{400, 400, 400, 400}, nil},
	} {
		o := &answersOf{answers: c.answers}
		answers, err := memstore.New(memstore.Config{})
		require.NoError(t, err)
		h, err := newStorefront(o, answers, httpguard.Config{})
		require.NoError(t, err)
		for i, key := range c.keys {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/orders", strings.NewReader(`{"card":"c"}`))
			r.Header.Set("User-Id", "ann")
			if key != "" {
				r.Header.Set("Idempotency-Key", key)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.want[i], w.Code, "%s, call %d: %s", c.what, i, w.Body)
			require.Equal(t, w.Code == http.StatusServiceUnavailable, w.Header().Get("Retry-After") != "", c.what)
		}
		require.Equal(t, c.asked, o.asked, c.what)
	}
}
