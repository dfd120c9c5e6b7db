package memstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

func begin(tb testing.TB, s *memstore.Store, id string) idempotency.Claim {
	tb.Helper()
	c, err := s.Begin(tb.Context(), idempotency.Key{Scope: "test", ID: id}, idempotency.BeginOptions{Lease: time.Minute})
	require.NoError(tb, err)
	return c
}

// A full store refuses. It never makes room by forgetting what somebody relies on.
func TestFullOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 1000
		s, err := memstore.New(memstore.Config{MaxKeys: most})
		require.NoError(t, err)
		for i := range most {
			c := begin(t, s, strconv.Itoa(i))
			if i%2 == 0 {
				require.NoError(t, s.Complete(t.Context(), c.Ticket, idempotency.Result{}, time.Hour))
			}
		}
		for i := range most {
			_, err := s.Begin(t.Context(), idempotency.Key{Scope: "more", ID: strconv.Itoa(i)}, idempotency.BeginOptions{Lease: time.Minute})
			require.ErrorIs(t, err, idempotency.ErrFull)
			want := map[bool]idempotency.Status{true: idempotency.Replay, false: idempotency.InFlight}[i%2 == 0]
			require.Equal(t, want, begin(t, s, strconv.Itoa(i)).Status, "what was there is there")
		}
		time.Sleep(time.Minute) // half of them have expired, in whatever shard
		for i := range most / 2 {
			require.Equal(t, idempotency.Owned, begin(t, s, "new"+strconv.Itoa(i)).Status)
		}
		_, err = s.Begin(t.Context(), idempotency.Key{Scope: "test", ID: "one more"}, idempotency.BeginOptions{Lease: time.Minute})
		require.ErrorIs(t, err, idempotency.ErrFull)
	})
}

func TestFullOfBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := memstore.New(memstore.Config{MaxBytes: 100})
		require.NoError(t, err)
		a, b := begin(t, s, "a").Ticket, begin(t, s, "b").Ticket // 5 bytes each
		body := bytes.Repeat([]byte{'x'}, 90)
		require.NoError(t, s.Complete(t.Context(), a, idempotency.Result{Body: body}, time.Minute))
		err = s.Complete(t.Context(), b, idempotency.Result{Meta: map[string][]string{"k": {"v"}}}, time.Hour)
		require.ErrorIs(t, err, idempotency.ErrFull)
		require.Equal(t, idempotency.InFlight, begin(t, s, "b").Status, "the claim is still there")
		require.NoError(t, s.Complete(t.Context(), b, idempotency.Result{Kind: idempotency.Tombstone}, time.Hour))
		_, err = s.Begin(t.Context(), idempotency.Key{Scope: "test", ID: "c"}, idempotency.BeginOptions{Lease: time.Minute})
		require.ErrorIs(t, err, idempotency.ErrFull)
		time.Sleep(time.Minute)
		c := begin(t, s, "c").Ticket
		require.NoError(t, s.Complete(t.Context(), c, idempotency.Result{Body: body}, time.Minute))
	})
}

// Whoever is refused is refused for what is live: results too, not only claims.
func TestWhatHasExpiredIsRemovedBeforeAnybodyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := memstore.New(memstore.Config{MaxBytes: 100})
		require.NoError(t, err)
		a, b := begin(t, s, "a").Ticket, begin(t, s, "b").Ticket
		result := idempotency.Result{Body: bytes.Repeat([]byte{'x'}, 90)}
		require.NoError(t, s.Complete(t.Context(), a, result, time.Second))
		require.ErrorIs(t, s.Complete(t.Context(), b, result, time.Hour), idempotency.ErrFull)
		time.Sleep(time.Second)
		require.NoError(t, s.Complete(t.Context(), b, result, time.Hour))

		s, err = memstore.New(memstore.Config{MaxKeys: 1})
		require.NoError(t, err)
		o := idempotency.BeginOptions{Lease: time.Hour}
		c, err := s.Begin(t.Context(), idempotency.Key{Scope: "test", ID: "long"}, o)
		require.NoError(t, err)
		_, err = s.Extend(t.Context(), c.Ticket, time.Second)
		require.NoError(t, err)
		time.Sleep(time.Second)
		begin(t, s, "next")
	})
}

// Names and values without any bytes are no way around the bound.
func TestEmptyValuesAreCounted(t *testing.T) {
	s, err := memstore.New(memstore.Config{MaxBytes: 10_000})
	require.NoError(t, err)
	r := idempotency.Result{Meta: map[string][]string{"": make([]string, 10_000)}}
	require.ErrorIs(t, s.Complete(t.Context(), begin(t, s, "a").Ticket, r, time.Hour), idempotency.ErrFull)
}

// A result that is refused for its size has no other one refused beside it.
func TestRefusalsAreExact(t *testing.T) {
	const most = 4096
	s, err := memstore.New(memstore.Config{MaxBytes: most})
	require.NoError(t, err)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	large := idempotency.Result{Body: make([]byte, most)}
	for i := range 2 {
		ticket := begin(t, s, fmt.Sprint("large", i)).Ticket
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := s.Complete(t.Context(), ticket, large, time.Hour); !errors.Is(err, idempotency.ErrFull) {
						t.Errorf("got %v, want ErrFull", err)
					}
				}
			}
		})
	}
	for i := range 100_000 {
		c := begin(t, s, strconv.Itoa(i))
		if err := s.Complete(t.Context(), c.Ticket, idempotency.Result{Body: []byte{'x'}}, time.Nanosecond); err != nil {
			t.Errorf("a result of one byte: %v", err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// What compares fences may outlive the process.
func TestFencesGrowOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := uint64(0)
		for range 3 {
			s, err := memstore.New(memstore.Config{})
			require.NoError(t, err)
			for range 100 {
				ticket := begin(t, s, "k").Ticket
				require.Greater(t, ticket.Fence, last)
				last = ticket.Fence
				require.NoError(t, s.Release(t.Context(), ticket))
			}
			time.Sleep(time.Second)
		}
	})
}

// What expires is removed in passing: a store that is never full does not grow with the keys it has seen.
func TestMemoryFollowsTheLiveKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := memstore.New(memstore.Config{})
		require.NoError(t, err)
		var before, after runtime.MemStats
		round := func(from, to int) {
			for i := from; i < to; i++ {
				c := begin(t, s, strconv.Itoa(i))
				require.NoError(t, s.Complete(t.Context(), c.Ticket, idempotency.Result{Body: make([]byte, 512)}, time.Minute))
				if i%1000 == 999 {
					time.Sleep(10 * time.Second)
				}
			}
		}
		round(0, 10_000)
		runtime.GC()
		runtime.ReadMemStats(&before)
		round(10_000, 40_000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.Less(t, after.HeapAlloc, before.HeapAlloc+4<<20, "30000 results of 512 bytes are 15 MB")
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := memstore.New(memstore.Config{MaxKeys: -1, MaxBytes: -1})
	require.ErrorContains(t, err, "MaxKeys")
	require.ErrorContains(t, err, "MaxBytes")
}

func BenchmarkClaimAndComplete(b *testing.B) {
	s, err := memstore.New(memstore.Config{})
	require.NoError(b, err)
	ids := make([]string, 50_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("0190a5e0-0000-7000-8000-%012d", i)
	}
	ctx, o := b.Context(), idempotency.BeginOptions{Lease: time.Minute}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		id := ids[i%len(ids)]
		i++
		c, err := s.Begin(ctx, idempotency.Key{Scope: "bench", ID: id}, o)
		if err != nil {
			b.Fatal(err)
		}
		if c.Status != idempotency.Owned {
			continue // a duplicate
		}
		if err := s.Complete(ctx, c.Ticket, idempotency.Result{}, time.Nanosecond); err != nil {
			b.Fatal(err)
		}
	}
}
