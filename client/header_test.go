package client_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/client"
)

func TestHeaders(t *testing.T) {
	names := []string{"Tandem-Timeout-Ms", "Tandem-Attempt", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Envoy-Attempt-Count"}
	for _, c := range []struct {
		rule          string
		config        client.Config
		first, second []string // the four
	}{
		{"ours", client.Config{}, []string{"3000", "", "", ""}, []string{"3000", "2", "", ""}},
		{"none", client.Config{Headers: client.HeadersNone}, make([]string, 4), make([]string, 4)},
		{"those of the mesh", client.Config{Headers: client.HeadersMesh}, []string{"", "", "3000", ""}, []string{"", "", "3000", "2"}},
		{"recomputed", client.Config{Timeout: 2 * time.Second}, []string{"1000", "", "", ""}, []string{"500", "2", "", ""}},
		{
			"no deadline",
			client.Config{Timeout: client.NoTimeout, AttemptTimeout: client.NoTimeout, BodyIdleTimeout: client.NoTimeout},
			[]string{"", "", "", ""},
			[]string{"", "2", "", ""},
		},
	} {
		t.Run(c.rule, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c.config.Retry = immediate()
				first := silence
				if c.rule == "no deadline" {
					first = fail(errReset)
				}
				w := newWire(first, answer(200))
				res, err := get(t.Context(), t, transport(t, w, c.config))
				require.NoError(t, err)
				text(t, res)
				for i, want := range [][]string{c.first, c.second} {
					var got []string
					for _, name := range names {
						got = append(got, w.seen[i].header.Get(name))
					}
					require.Equal(t, want, got, "attempt %d", i+1)
				}
			})
		})
	}
}

func TestOnAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		type mark struct{}
		ctx := context.WithValue(t.Context(), mark{}, "the caller's")
		var told []client.Attempt
		w := newWire(after(time.Second, answer(503)), after(2*time.Second, fail(errReset)), answer(200))
		tr := transport(t, w, client.Config{OnAttempt: func(ctx context.Context, e client.Attempt) {
			require.Equal(t, "the caller's", ctx.Value(mark{}))
			told = append(told, e)
			panic("a hook decides nothing")
		}})
		res, err := get(ctx, t, tr)
		require.NoError(t, err)
		text(t, res)
		require.Equal(t, []client.Attempt{
			{Number: 1, Key: key, Status: 503, Duration: time.Second},
			{Number: 2, Key: key, Err: errReset, Duration: 2 * time.Second},
			{Number: 3, Key: key, Status: 200},
		}, told)
	})
}

// Nothing that may be secret is written: not the path, the query or the userinfo, nor a URL inside an error.
func TestNoSecretIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		inner := &url.Error{Op: "Get", URL: target, Err: errReset}
		outer := &url.Error{Op: "Get", URL: target, Err: fmt.Errorf("auth: %w", inner)}
		tr := transport(t, newWire(answer(503), fail(outer)), client.Config{
			Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "hunter3")
		_, err = tr.RoundTrip(r)
		require.ErrorIs(t, err, errReset)
		require.Contains(t, log.String(), "client: retry")
		require.Contains(t, log.String(), "client: gave up")
		for _, secret := range []string{"hunter", "secret", "private"} {
			require.NotContains(t, log.String(), secret)
		}
	})
}
