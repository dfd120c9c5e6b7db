package natsstore

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
)

// What needs a server is tested in internal/conformance: this module's users do not pay for one.

func TestNewRefuses(t *testing.T) {
	_, err := New(nil, "a.b", Config{MaxBytes: -1, Replicas: 6})
	for _, word := range []string{"connection", `"a.b"`, "MaxBytes", "Replicas"} {
		require.ErrorContains(t, err, word)
	}
	for _, bucket := range []string{"", "a b", "a*", "ä"} {
		_, err = New(&nats.Conn{}, bucket, Config{})
		require.ErrorContains(t, err, "bucket", bucket)
	}
}

// A replicated stream answers a conflict with another code while its members have not agreed yet.
func TestBothCodesAreConflicts(t *testing.T) {
	for code, want := range map[jetstream.ErrorCode]bool{10071: true, 10164: true, 10077: false, 10059: false} {
		err := translate(fmt.Errorf("nats: %w", &jetstream.APIError{ErrorCode: code}))
		require.Equal(t, want, conflict(err), code)
	}
	require.False(t, conflict(nats.ErrTimeout))
}

// What has no room has room for a tombstone, perhaps; what is not known as that is asked again until the lease ends.
func TestWhatHasNoRoom(t *testing.T) {
	for code, want := range map[jetstream.ErrorCode]bool{10002: true, 10023: true, 10047: true, 10054: true, 10077: true, 10071: false, 10059: false} {
		err := translate(fmt.Errorf("nats: %w", &jetstream.APIError{ErrorCode: code}))
		require.Equal(t, want, errors.Is(err, idempotency.ErrFull), code)
	}
	require.ErrorIs(t, translate(nats.ErrMaxPayload), idempotency.ErrFull)
	require.NotErrorIs(t, translate(nats.ErrTimeout), idempotency.ErrFull)
}

func TestTTLIsWholeSecondsAndNeverShort(t *testing.T) {
	for _, test := range []struct {
		parts []time.Duration
		want  time.Duration
	}{
		{[]time.Duration{0}, time.Second},
		{[]time.Duration{time.Millisecond}, time.Second},
		{[]time.Duration{time.Second}, time.Second},
		{[]time.Duration{time.Second, time.Nanosecond}, 2 * time.Second},
		{[]time.Duration{math.MaxInt64, math.MaxInt64}, 100 * 365 * 24 * time.Hour},
	} {
		require.Equal(t, test.want, wholeSeconds(test.parts...), test.parts)
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	k := idempotency.Key{Scope: "orders", ID: "42\x00\xff<&>"}
	r := claim(k, idempotency.BeginOptions{Fingerprint: []byte{1, 2}, Lease: time.Minute, Retain: time.Hour})
	r.Fence = 7
	result := idempotency.Result{
		Kind: idempotency.Failed, Body: []byte("\n{}\x00"),
		Meta: map[string][]string{"a": {"b", "c"}, "odd": {"\xff", "ok"}, "\xfe": {"x"}},
	}
	b, err := r.done(result).encode()
	require.NoError(t, err)
	got, err := decode(b)
	require.NoError(t, err)
	require.Equal(t, []byte{1, 2}, got.Fingerprint)
	require.EqualValues(t, 7, got.Fence)
	require.Equal(t, result, got.result(time.Time{}))
}

func TestForeignRecordsAreErrors(t *testing.T) {
	for _, b := range []string{"", "\n", "{}\n", "null\n", `{"v":1}`, `{"v":2,"state":"done"}` + "\n", `{"v":1,"state":"parked"}` + "\n", "\x00\n"} {
		_, err := decode([]byte(b))
		require.Error(t, err, "%q", b)
	}
	for _, token := range []string{"", "12345678", "12345678{}\n"} {
		_, _, err := parseToken(token)
		require.Error(t, err, "%q", token)
	}
}
