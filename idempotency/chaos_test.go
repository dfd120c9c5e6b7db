package idempotency_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
)

// faults fails one operation in three: before it happens or after, at once or only when its context ends.
func faults(draw func(n int) int) func(context.Context, idempotencytest.Op) error {
	return func(ctx context.Context, _ idempotencytest.Op) error {
		switch draw(12) {
		case 0:
			return errStore
		case 1:
			<-ctx.Done()
			return ctx.Err()
		case 2:
			time.Sleep(time.Duration(draw(3000)) * time.Millisecond)
		}
		return nil
	}
}

// Callers that give up, work that fails, panics, exits and stalls, a store that fails at every step. With Park no effect
// is there twice, whatever happens; and whoever is told that it is done is told the truth.
func TestNoSecondEffect(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex // guards what follows
			r := rand.New(rand.NewPCG(seed, 0))
			effects, answers := 0, 0
			draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
			count := func(n *int) { mu.Lock(); defer mu.Unlock(); *n++ }

			s := &idempotencytest.Faulty{Store: newStore(t), Before: faults(draw), After: faults(draw)}
			work := func(ctx context.Context) (int, error) {
				for range draw(4) { // some of it looks at its context
					select {
					case <-time.After(time.Duration(draw(4000)) * time.Millisecond):
					case <-ctx.Done():
						if draw(2) == 0 {
							return 0, ctx.Err()
						}
					}
				}
				switch draw(6) {
				case 0:
					return 0, errWork
				case 1:
					panic(errWork)
				case 2:
					runtime.Goexit()
				}
				count(&effects)
				idempotency.Done(ctx)
				switch draw(6) {
				case 0:
					return 0, errWork
				case 1:
					panic(errWork)
				case 2:
					runtime.Goexit()
				}
				return 7, nil
			}
			var wg sync.WaitGroup
			for range 12 {
				start := time.Duration(draw(20_000)) * time.Millisecond
				patience := time.Duration(1+draw(10_000)) * time.Millisecond
				wg.Go(func() {
					defer func() { _ = recover() }()
					time.Sleep(start)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					c := idempotency.Config{Lease: 2 * time.Second, Wait: time.Duration(draw(2)) * time.Second, Park: true}
					v, err := idempotency.Do(ctx, s, theKey, c, work)
					if err == nil {
						require.Equal(t, 7, v)
						count(&answers)
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, effects, 1, "seed %d", seed)
			if answers > 0 {
				require.Equal(t, 1, effects, "seed %d", seed)
			}
		})
	}
}
