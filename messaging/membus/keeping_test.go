package membus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

func open(t *testing.T, b *membus.Bus, s messaging.Spec) messaging.Subscription {
	t.Helper()
	s.Topic, s.Slots = "orders", 100
	if s.Report == nil {
		s.Report = func(context.Context, messaging.Event) {}
	}
	sub, err := b.Open(t.Context(), s)
	require.NoError(t, err)
	return sub
}

// receive returns what comes within a second, at most n.
func receive(t *testing.T, sub messaging.Subscription, n int) []messaging.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	into := make([]messaging.Delivery, n)
	k, err := sub.Receive(ctx, into)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	return into[:k]
}

// A member that waits is told of a lease that passes, though it began to wait before the lease began.
func TestAWaitingMemberGetsWhatAnotherLoses(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t, membus.Config{})
			frozen := open(t, b, messaging.Spec{Group: "g", Lease: 10 * time.Second})
			got := make(chan []messaging.Delivery, 1)
			go func() { got <- receive(t, frozen, 1) }()
			synctest.Wait()
			third := open(t, b, messaging.Spec{Group: "g", Lease: 10 * time.Second})
			gone := make(chan []messaging.Delivery, 1)
			if closes { // one that would have been told, and does not stay
				go func() { gone <- receive(t, third, 1) }()
				synctest.Wait()
			}
			at := make(chan time.Time, 1)
			run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
				at <- time.Now()
				return nil
			})
			synctest.Wait()
			began := time.Now()
			require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(t.Context(), message("a")))
			require.Len(t, <-got, 1)
			if closes {
				require.Empty(t, <-gone)
				require.NoError(t, third.Close(t.Context()))
			}
			require.Equal(t, 10*time.Second, (<-at).Sub(began))
		})
	}
}

// A group may be unordered today and ordered tomorrow: nothing stays behind in its lanes.
func TestAGroupThatChangesItsOrderLosesNothing(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t, membus.Config{})
			p := publisher(t, b, messaging.PublisherConfig{})
			for i := range 5 {
				m := message(fmt.Sprint(i))
				m.Key = "k"
				require.NoError(t, p.Publish(t.Context(), m))
			}
			later := message("5")
			later.Key, later.NotBefore = "k", time.Now().Add(time.Hour)
			require.NoError(t, p.Publish(t.Context(), later))
			sub := open(t, b, messaging.Spec{Group: "g", Ordered: ordered, Lease: time.Minute, Start: messaging.Earliest()})
			d := receive(t, sub, 3)
			require.NotEmpty(t, d)
			require.NoError(t, sub.Settle(t.Context(), []messaging.Settlement{{Ref: d[0].Ref, Action: messaging.Retry, Delay: time.Second}}))
			require.Empty(t, receive(t, sub, 0))
			require.NoError(t, sub.Close(t.Context()))
			c, _ := run(t, b, messaging.ConsumerConfig{Group: "g", Ordered: !ordered}, ok)
			time.Sleep(2 * time.Hour)
			require.Equal(t, int64(6), c.Stats().Handled)
			lag, err := c.Lag(t.Context())
			require.NoError(t, err)
			require.Equal(t, messaging.Lag{}, lag)
		})
	}
}

// What a handler does to its message stays with that delivery: a broker has the bytes that were published.
func TestARedeliveryIsAsItWasPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		got := make(chan string, 2)
		run(t, b, messaging.ConsumerConfig{Group: "h", Concurrency: 1, Retry: retry.Policy{MaxAttempts: 2}}, func(_ context.Context, m *messaging.Message) error {
			got <- fmt.Sprint(m.ID, m.Topic, m.Key, string(m.Body))
			m.ID, m.Topic, m.Key, m.Body = "x", "x", "x", nil
			if m.Attempt == 1 {
				return errors.New("no")
			}
			return nil
		})
		m := message("body")
		m.ID, m.Key = "id", "key"
		require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(t.Context(), m))
		time.Sleep(time.Minute)
		require.Equal(t, []string{"idorderskeybody", "idorderskeybody"}, []string{<-got, <-got})
	})
}

// The lane of a key is freed whatever its handler made of the key.
func TestALaneIsTheBrokersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g", Ordered: true}, func(_ context.Context, m *messaging.Message) error {
			m.Key = "another"
			return nil
		})
		p := publisher(t, b, messaging.PublisherConfig{})
		for range 5 {
			m := message("a")
			m.Key = "k"
			require.NoError(t, p.Publish(t.Context(), m))
		}
		time.Sleep(time.Minute)
		require.Equal(t, int64(5), c.Stats().Handled)
	})
}

// A lease that passes gives the bytes back that its member had in hand.
func TestALostLeaseTakesNoBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		p := publisher(t, b, messaging.PublisherConfig{})
		for range 4 {
			m := message("")
			m.Body = make([]byte, 1000)
			require.NoError(t, p.Publish(t.Context(), m))
		}
		sub := open(t, b, messaging.Spec{Group: "g", Lease: time.Second, MaxBytes: 4000, Start: messaging.Earliest()})
		for range 3 {
			require.Len(t, receive(t, sub, 4), 4)
			time.Sleep(time.Second)
		}
	})
}

// MaxBytes counts what groups hold as well: what is scheduled, or waits for a retry, is memory.
func TestTheBoundInBytesCountsWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxBytes: 10_000})
		p := publisher(t, b, messaging.PublisherConfig{Retry: retry.Never()})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g"}, ok)
		stored := 0
		for range 20 {
			m := message("")
			m.Body, m.NotBefore = make([]byte, 1000), time.Now().Add(time.Hour)
			if p.Publish(t.Context(), m) == nil {
				stored++
			}
			synctest.Wait()
		}
		require.Equal(t, 10, stored)
		time.Sleep(2 * time.Hour)
		require.Equal(t, int64(10), c.Stats().Handled)
		for range 20 {
			m := message("")
			m.Body = make([]byte, 1000)
			require.NoError(t, p.Publish(t.Context(), m), "there is room again")
			synctest.Wait()
		}
	})
}
