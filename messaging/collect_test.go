package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

func batch(t *testing.T, size int, wait time.Duration, h func(context.Context, []*messaging.Message) []error) messaging.Handler {
	t.Helper()
	b, err := messaging.Batch(size, wait, h)
	require.NoError(t, err)
	return b
}

func TestABatchIsFullOrHasWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		began := time.Now()
		got := make(chan string, 10)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"},
			batch(t, 4, time.Second, func(_ context.Context, m []*messaging.Message) []error {
				got <- fmt.Sprint(len(m), " after ", time.Since(began))
				return nil
			}))
		publish(t, b, bodies("orders", "1", "2", "3", "4", "5", "6")...)
		pass(time.Minute)
		require.Equal(t, []string{"4 after 0s", "2 after 1s"}, []string{<-got, <-got})
		require.Equal(t, int64(6), r.Stats().Handled)
	})
}

func TestEachMessageOfABatchHasItsOwnVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Retry: every(time.Second, 2)},
			batch(t, 3, time.Second, func(_ context.Context, m []*messaging.Message) []error {
				errs := make([]error, len(m))
				for i := range m {
					switch string(m[i].Body) {
					case "bad":
						errs[i] = messaging.Reject(errNo)
					case "late":
						if m[i].Attempt == 1 {
							errs[i] = errNo
						}
					}
				}
				return errs
			}))
		publish(t, b, bodies("orders", "good", "bad", "late")...)
		pass(time.Minute)
		require.Len(t, r.saw(), 4)
		require.Equal(t, int64(2), r.Stats().Handled)
		require.Equal(t, "bad", string(r.dead1(t).Message.Body))
	})
}

func TestABatchThatBreaksFailsAllItsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var calls atomic.Int32
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Retry: every(time.Minute, 9)},
			batch(t, 2, time.Second, func(context.Context, []*messaging.Message) []error {
				switch calls.Add(1) {
				case 1:
					panic("oh")
				case 2:
					return make([]error, 7)
				}
				return nil
			}))
		publish(t, b, bodies("orders", "1", "2")...)
		pass(time.Hour)
		require.Len(t, r.saw(), 6)
		require.Equal(t, int64(2), r.Stats().Handled)
		require.Equal(t, int64(4), r.Stats().Failed)
	})
}

func TestAMessageLeavesABatchThatHasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		h := batch(t, 5, time.Minute, func(_ context.Context, m []*messaging.Message) []error {
			for _, m := range m {
				got = append(got, string(m.Body))
			}
			return nil
		})
		cause := errors.New("lease lost")
		answers := make(chan string, 3)
		var cancels []context.CancelCauseFunc
		for i := range 3 {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancels = append(cancels, cancel)
			go func() { answers <- fmt.Sprint(i, " ", h(ctx, message("orders", "", fmt.Sprint(i)))) }()
			synctest.Wait()
		}
		cancels[1](cause)
		require.Equal(t, "1 lease lost", <-answers)
		cancels[0](cause) // it had the timer
		rest := []string{<-answers, <-answers}
		require.ElementsMatch(t, []string{"0 lease lost", "2 <nil>"}, rest)
		require.Equal(t, []string{"2"}, got)
		cancels[2](nil)
	})
}

func TestTheContextOfABatchEndsWithThoseOfAllItsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		h := batch(t, 2, time.Minute, func(ctx context.Context, _ []*messaging.Message) []error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return []error{errNo, errNo}
		})
		one, endOne := context.WithCancelCause(t.Context())
		two, endTwo := context.WithCancelCause(t.Context())
		answers := make(chan error, 2)
		go func() { answers <- h(one, message("orders", "", "1")) }()
		go func() { answers <- h(two, message("orders", "", "2")) }()
		synctest.Wait()
		endOne(messaging.ErrLeaseLost)
		synctest.Wait()
		require.Empty(t, causes, "the other message still counts on it")
		endTwo(messaging.ErrDraining)
		require.ErrorIs(t, <-causes, messaging.ErrDraining)
		require.ErrorIs(t, <-answers, errNo)
		require.ErrorIs(t, <-answers, errNo)
	})
}

func TestBatchReportsEveryFault(t *testing.T) {
	_, err := messaging.Batch(0, 0, nil)
	require.ErrorContains(t, err, "size")
	require.ErrorContains(t, err, "wait")
	require.ErrorContains(t, err, "nil")
}
