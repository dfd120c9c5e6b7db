package idempotency_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
)

func TestBeginOptionsReportEveryFault(t *testing.T) {
	err := idempotency.BeginOptions{Lease: -1, Retain: -1, Fingerprint: make([]byte, 65), Park: true}.Validate(idempotency.Promises{})
	for _, word := range []string{"Lease", "Retain", "Fingerprint", "Park"} {
		require.ErrorContains(t, err, word)
	}
	p := idempotency.Promises{MinLease: time.Second}
	require.ErrorContains(t, idempotency.BeginOptions{Lease: 1}.Validate(p), "needs 1s")
	require.NoError(t, idempotency.BeginOptions{Lease: time.Second}.Validate(p))
}
