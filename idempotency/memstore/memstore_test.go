package memstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/memstore"
)

func TestContract(t *testing.T) {
	idempotencytest.Run(t, idempotencytest.Harness{New: func(tb testing.TB) idempotency.Store {
		s, err := memstore.New(memstore.Config{MaxBytes: 16 << 20})
		require.NoError(tb, err)
		return s
	}})
}
