package memstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
)

// Keys of one hash share a chain, and the whole key decides: a collision must not be a lost message. No test from
// outside can make 64 bits collide, so this one gives every key the same hash.
func TestKeysOfOneHashNeverMeet(t *testing.T) {
	s, err := New(Config{})
	require.NoError(t, err)
	sh := &s.shards[0]
	const keys = 50
	want := make(map[idempotency.Key]idempotency.Ticket) // the model
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Duration(0)
	for range 20_000 {
		k := idempotency.Key{Scope: "s", ID: fmt.Sprint(r.IntN(keys))}
		held, live := want[k]
		claim, full := sh.begin(1, k, idempotency.BeginOptions{Lease: time.Hour}, now)
		require.False(t, full)
		if live {
			require.Equal(t, idempotency.InFlight, claim.Status)
			if r.IntN(3) == 0 {
				require.NoError(t, sh.release(1, held, now))
				delete(want, k)
			}
		} else {
			require.Equal(t, idempotency.Owned, claim.Status)
			want[k] = claim.Ticket
		}
		if r.IntN(500) == 0 {
			now += time.Hour
			clear(want)
		}
	}
	for _, held := range want {
		require.NoError(t, sh.release(1, held, now))
	}
	now += time.Hour
	sh.sweep(now)
	require.Zero(t, s.keys.Load())
	require.Zero(t, s.bytes.Load())
	require.Empty(t, sh.index)
	require.LessOrEqual(t, len(sh.records), keys, "freed records are used again")
}
