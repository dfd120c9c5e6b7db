package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/memstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

func consumer() messaging.ConsumerInfo {
	return messaging.ConsumerInfo{Topic: "orders", Group: "billing", Lease: 30 * time.Second, MaxAge: 24 * time.Hour}
}

func guard(t testing.TB, s idempotency.Store, c idempotency.ConsumeConfig, h messaging.Handler) messaging.Handler {
	t.Helper()
	guarded, err := idempotency.Consume(s, "billing", c)(h, consumer())
	require.NoError(t, err)
	return guarded
}

// counts is a handler that counts its runs and returns err.
func counts(runs *int, err error) messaging.Handler {
	return func(context.Context, *messaging.Message) error { *runs++; return err }
}

func order(id, body string) *messaging.Message {
	return &messaging.Message{ID: id, Source: "/orders", Topic: "orders", Body: []byte(body)}
}

// permanent says that the message is to be a dead letter.
func permanent(err error) bool {
	return retry.Judge(err).Stop
}

func hint(t testing.TB, err error) time.Duration {
	t.Helper()
	o := retry.Judge(err)
	require.True(t, o.Hinted)
	return o.Hint
}

func TestConsumeAcknowledgesADuplicate(t *testing.T) {
	runs := 0
	h := guard(t, newStore(t), idempotency.ConsumeConfig{}, counts(&runs, nil))
	for range 3 {
		require.NoError(t, h(t.Context(), order("1", "a")))
	}
	require.Equal(t, 1, runs)
}

// Marking before the work loses messages: the redelivery of one that failed must run.
func TestConsumeRunsTheRedeliveryOfWhatFailed(t *testing.T) {
	s, runs := newStore(t), 0
	for _, want := range []error{errWork, messaging.Reject(errWork), messaging.RetryAfter(errWork, time.Second), nil} {
		h := guard(t, s, idempotency.ConsumeConfig{Park: true}, counts(&runs, want))
		require.Equal(t, want, h(t.Context(), order("1", "a")), "the handler's verdict, untouched")
	}
	require.Equal(t, 4, runs)
}

// But not of what failed after its effect, if the handler said so.
func TestConsumeAcknowledgesTheRedeliveryOfWhatWasDone(t *testing.T) {
	runs := 0
	h := guard(t, newStore(t), idempotency.ConsumeConfig{}, func(ctx context.Context, m *messaging.Message) error {
		idempotency.Done(ctx)
		return counts(&runs, errWork)(ctx, m)
	})
	require.Equal(t, errWork, h(t.Context(), order("1", "a")))
	require.NoError(t, h(t.Context(), order("1", "a")))
	require.Equal(t, 1, runs)
}

func TestConsumeDelaysADuplicateOfWorkUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h messaging.Handler
		h = guard(t, newStore(t), idempotency.ConsumeConfig{}, func(ctx context.Context, m *messaging.Message) error {
			err := h(ctx, m)
			require.ErrorIs(t, err, idempotency.ErrInFlight)
			require.False(t, permanent(err))
			require.Equal(t, 30*time.Second, hint(t, err))
			return nil
		})
		require.NoError(t, h(t.Context(), order("1", "a")))
	})
}

func TestConsumeKeepsConsumersAndSourcesApart(t *testing.T) {
	s, runs := newStore(t), 0
	for _, name := range []string{"billing", "shipping"} {
		h, err := idempotency.Consume(s, name, idempotency.ConsumeConfig{})(counts(&runs, nil), consumer())
		require.NoError(t, err)
		require.NoError(t, h(t.Context(), order("1", "a")))
		other := order("1", "another producer counts from 1, too")
		other.Source = "/elsewhere"
		require.NoError(t, h(t.Context(), other))
		require.NoError(t, h(t.Context(), &messaging.Message{ID: "s1", Source: "/order", Body: []byte("framed")}))
	}
	require.Equal(t, 6, runs)
}

func TestConsumeRejectsWhatNoRetryCanMend(t *testing.T) {
	s, runs := newStore(t), 0
	h := guard(t, s, idempotency.ConsumeConfig{}, counts(&runs, nil))
	require.NoError(t, h(t.Context(), order("1", "a")))
	require.NoError(t, h(t.Context(), &messaging.Message{ID: "empty", Source: "/orders"}))
	runs = 0

	err := h(t.Context(), order("1", "b"))
	require.ErrorIs(t, err, idempotency.ErrMismatch)
	require.True(t, permanent(err))
	err = h(t.Context(), order("empty", "b"))
	require.ErrorIs(t, err, idempotency.ErrMismatch, "an empty body is a body")

	for _, m := range []*messaging.Message{order("", "a"), order(strings.Repeat("x", 3000), "a")} {
		err = h(t.Context(), m)
		require.ErrorIs(t, err, idempotency.ErrInvalidKey)
		require.True(t, permanent(err))
	}

	own := idempotency.ConsumeConfig{Key: func(*messaging.Message) (string, error) { return "", errWork }}
	err = guard(t, s, own, counts(&runs, nil))(t.Context(), order("1", "a"))
	require.ErrorIs(t, err, errWork)
	require.True(t, permanent(err))
	require.Zero(t, runs)
}

func TestConsumeParks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, runs := newStore(t), 0
		crashed := &idempotencytest.Faulty{Store: mem, Before: func(_ context.Context, op idempotencytest.Op) error {
			if op != idempotencytest.Begin {
				return errStore
			}
			return nil
		}}
		_ = guard(t, crashed, idempotency.ConsumeConfig{}, counts(&runs, errWork))(t.Context(), order("1", "a"))
		time.Sleep(time.Minute)
		err := guard(t, mem, idempotency.ConsumeConfig{Park: true}, counts(&runs, nil))(t.Context(), order("1", "a"))
		require.ErrorIs(t, err, idempotency.ErrUnknown)
		require.True(t, permanent(err))
		require.Equal(t, 1, runs)
	})
}

func TestConsumeWithAKeyOfItsOwn(t *testing.T) {
	runs := 0
	c := idempotency.ConsumeConfig{Key: func(m *messaging.Message) (string, error) { return string(m.Body[:7]), nil }}
	h := guard(t, newStore(t), c, counts(&runs, nil))
	require.NoError(t, h(t.Context(), order("1", "order-1 at noon")))
	require.NoError(t, h(t.Context(), order("2", "order-1 at one")), "another message of the same operation")
	require.NoError(t, h(t.Context(), order("3", "order-2")))
	require.Equal(t, 2, runs)
}

func TestConsumeIsClosedWhileTheStoreFails(t *testing.T) {
	// A store may know that no try of its own can help. The message has nothing to do with that.
	for _, failure := range []error{errStore, retry.Permanent(errStore), retry.After(errStore, time.Hour)} {
		runs := 0
		s := &idempotencytest.Faulty{Store: newStore(t), Before: func(context.Context, idempotencytest.Op) error { return failure }}
		err := guard(t, s, idempotency.ConsumeConfig{}, counts(&runs, nil))(t.Context(), order("1", "a"))
		require.ErrorIs(t, err, errStore)
		require.False(t, permanent(err))
		require.Equal(t, 5*time.Second, hint(t, err))
		require.Zero(t, runs)
	}
}

// The effect is there and the message must go: a redelivery would run it again.
func TestConsumeAcknowledgesWhatCouldNotBeRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		s := &idempotencytest.Faulty{Store: newStore(t), Before: func(_ context.Context, op idempotencytest.Op) error {
			if op == idempotencytest.Complete {
				return errStore
			}
			return nil
		}}
		require.NoError(t, guard(t, s, idempotency.ConsumeConfig{}, counts(&runs, nil))(t.Context(), order("1", "a")))
	})
}

func TestConsumeRetriesAHandlerThatLostItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &idempotencytest.Faulty{Store: newStore(t), Before: func(_ context.Context, op idempotencytest.Op) error {
			if op == idempotencytest.Extend {
				return errStore
			}
			return nil
		}}
		// A verdict on a message that somebody else may be handling does not count, either.
		for _, verdict := range []func(error) error{func(err error) error { return err }, messaging.Reject} {
			h := guard(t, s, idempotency.ConsumeConfig{}, func(ctx context.Context, _ *messaging.Message) error {
				<-ctx.Done()
				return verdict(ctx.Err())
			})
			err := h(t.Context(), order("1", "a"))
			require.ErrorIs(t, err, idempotency.ErrLost)
			require.False(t, permanent(err))
			require.Positive(t, hint(t, err))
		}
	})
}

func TestConsumeRefusesAtConstruction(t *testing.T) {
	day := 24 * time.Hour
	refuse := func(s idempotency.Store, name string, c idempotency.ConsumeConfig, in messaging.ConsumerInfo, words ...string) {
		t.Helper()
		_, err := idempotency.Consume(s, name, c)(counts(new(int), nil), in)
		for _, w := range words {
			require.ErrorContains(t, err, w)
		}
	}
	s := newStore(t)
	refuse(nil, "billing", idempotency.ConsumeConfig{}, consumer(), "store")
	refuse(s, "", idempotency.ConsumeConfig{Lease: -1, Retain: -1}, consumer(), "name of the consumer", "Lease", "Retain")
	refuse(s, "billing", idempotency.ConsumeConfig{Retain: day}, consumer(), "Retain 24h")
	in := consumer()
	in.Features.Redelivery = 10 * day
	refuse(s, "billing", idempotency.ConsumeConfig{Retain: 9 * day}, in, "orders")
	strict := promises{s, idempotency.Promises{MinLease: time.Minute}}
	refuse(strict, "billing", idempotency.ConsumeConfig{Park: true}, in, "Lease 30s", "Park")

	_, err := idempotency.Consume(s, "billing", idempotency.ConsumeConfig{Retain: 11 * day})(counts(new(int), nil), in)
	require.NoError(t, err)

	for _, unknown := range []messaging.ConsumerInfo{
		{Topic: "orders", Lease: time.Minute, MaxAge: day, Features: messaging.Features{Redelivery: messaging.NoTimeout}},
		{Topic: "orders", Lease: time.Minute, MaxAge: messaging.NoTimeout, Features: messaging.Features{Redelivery: day}},
	} {
		var out bytes.Buffer
		c := idempotency.ConsumeConfig{Retain: 2 * day, Log: slog.New(slog.NewTextHandler(&out, nil))}
		_, err = idempotency.Consume(s, "billing", c)(counts(new(int), nil), unknown)
		require.NoError(t, err)
		require.Contains(t, out.String(), "nobody knows")
		refuse(s, "billing", idempotency.ConsumeConfig{Retain: day}, unknown, "Retain 24h")
	}
}

// No bound is not for ever: a store that never forgets is full one day, and then refuses every message.
func TestConsumeForgetsWhereNothingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := memstore.New(memstore.Config{MaxKeys: 1})
		require.NoError(t, err)
		in := consumer()
		in.MaxAge, in.Features.Redelivery = messaging.NoTimeout, messaging.NoTimeout
		runs := 0
		h, err := idempotency.Consume(s, "billing", idempotency.ConsumeConfig{})(counts(&runs, nil), in)
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, h(t.Context(), order(fmt.Sprint(i), "a")))
			time.Sleep(8 * 24 * time.Hour)
		}
		require.Equal(t, 3, runs)
	})
}

// The default retention is longer than whatever may come again.
func TestConsumeRemembersForAsLongAsItIsRedelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const span = 30 * 24 * time.Hour
		in := consumer()
		in.Features.Redelivery = span
		runs := 0
		h, err := idempotency.Consume(newStore(t), "billing", idempotency.ConsumeConfig{})(counts(&runs, nil), in)
		require.NoError(t, err)
		require.NoError(t, h(t.Context(), order("1", "a")))
		time.Sleep(span + time.Hour)
		require.NoError(t, h(t.Context(), order("1", "a")))
		require.Equal(t, 1, runs)
	})
}

// Two members, a bus that delivers twice, handlers that fail and stall, a store that fails: every effect is there once.
func TestConsumeOverABus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const orders = 100
		bus, err := membus.New(membus.Config{Dedupe: time.Nanosecond})
		require.NoError(t, err)
		var calls atomic.Int64
		store := &idempotencytest.Faulty{Store: newStore(t), Before: func(_ context.Context, op idempotencytest.Op) error {
			if n := calls.Add(1); n%7 == 0 && (op == idempotencytest.Begin || op == idempotencytest.Extend) {
				return errStore
			}
			return nil
		}}
		var mu sync.Mutex
		effects, runs := map[string]int{}, map[string]int{}
		handler := func(ctx context.Context, m *messaging.Message) error {
			mu.Lock()
			runs[m.ID]++
			run := runs[m.ID]
			mu.Unlock()
			if run == 1 && len(m.ID)%2 == 0 {
				return errWork
			}
			time.Sleep(time.Duration(len(m.ID)*run*7) * time.Second) // longer than the lease
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			effects[m.ID]++
			mu.Unlock()
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		for range 2 {
			c, err := messaging.NewConsumer(bus, "orders", handler, messaging.ConsumerConfig{
				Group: "billing",
				Use:   []messaging.Middleware{idempotency.Consume(store, "billing", idempotency.ConsumeConfig{})},
				OnDead: func(_ context.Context, e messaging.DeadLetter) {
					t.Errorf("dead letter %s: %v", e.Message.ID, e.Err)
				},
			})
			require.NoError(t, err)
			go func() { ended <- c.Run(ctx) }()
			<-c.Ready()
		}
		p, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
		require.NoError(t, err)
		for range 2 {
			for i := range orders {
				require.NoError(t, p.Publish(ctx, order(fmt.Sprint("order-", i), "a")))
			}
		}
		time.Sleep(12 * time.Hour)
		cancel()
		require.NoError(t, errors.Join(<-ended, <-ended))
		require.Len(t, effects, orders)
		for id, n := range effects {
			require.Equal(t, 1, n, id)
		}
	})
}

type promises struct {
	idempotency.Store
	p idempotency.Promises
}

func (p promises) Promises() idempotency.Promises { return p.p }
