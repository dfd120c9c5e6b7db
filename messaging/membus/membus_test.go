package membus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

func newBus(t *testing.T, c membus.Config) *membus.Bus {
	t.Helper()
	b, err := membus.New(c)
	require.NoError(t, err)
	return b
}

func message(body string) *messaging.Message {
	return &messaging.Message{Topic: "orders", Body: []byte(body)}
}

func publisher(t *testing.T, b *membus.Bus, c messaging.PublisherConfig) *messaging.Publisher {
	t.Helper()
	p, err := messaging.NewPublisher(b, c)
	require.NoError(t, err)
	return p
}

// run starts a consumer that ends with t.
func run(t *testing.T, b *membus.Bus, c messaging.ConsumerConfig, h messaging.Handler) (*messaging.Consumer, context.CancelFunc) {
	t.Helper()
	consumer, err := messaging.NewConsumer(b, "orders", h, c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := consumer.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	<-consumer.Ready()
	stop := func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return consumer, stop
}

func ok(context.Context, *messaging.Message) error { return nil }

func TestNewReportsEveryFault(t *testing.T) {
	_, err := membus.New(membus.Config{MaxMessages: -1, MaxBytes: -1, MaxMessage: -1, MaxAge: -1, Dedupe: -1})
	for _, part := range []string{"MaxMessages", "MaxBytes", "MaxMessage ", "MaxAge", "Dedupe"} {
		require.ErrorContains(t, err, part)
	}
}

// Trap: an unbounded queue. Publish waits for room, and says so when its context ends first.
func TestPublishWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxMessages: 10})
		p := publisher(t, b, messaging.PublisherConfig{Retry: retry.Never()})
		for i := range 10 {
			require.NoError(t, p.Publish(t.Context(), message(fmt.Sprint(i))))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Publish(ctx, message("too much"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.False(t, pe.Failed[0].Unknown)

		published := make(chan error, 1)
		go func() { published <- p.Publish(t.Context(), message("10"), message("11")) }()
		synctest.Wait()
		require.Empty(t, published)
		var handled atomic.Int32
		run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			handled.Add(1)
			return nil
		})
		require.NoError(t, <-published)
		time.Sleep(time.Second)
		require.Equal(t, int32(12), handled.Load())
	})
}

// What a handler holds, or waits for its retry, takes room as well.
func TestTheBoundCountsWhatIsNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxMessages: 10})
		p := publisher(t, b, messaging.PublisherConfig{Retry: retry.Never()})
		run(t, b, messaging.ConsumerConfig{Group: "g", Retry: retry.Policy{BaseDelay: time.Hour, MaxDelay: time.Hour, MaxAttempts: 2}},
			func(_ context.Context, m *messaging.Message) error {
				if m.Attempt == 1 {
					return errors.New("later")
				}
				return nil
			})
		for i := range 10 {
			require.NoError(t, p.Publish(t.Context(), message(fmt.Sprint(i))))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.Error(t, p.Publish(ctx, message("too much")))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.NoError(t, p.Publish(t.Context(), message("again")))
	})
}

// Trap: one slow subscriber blocks another. A reader is not waited for; it learns what it has missed.
func TestASlowReaderHoldsNobodyAndSeesItsGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxMessages: 10})
		p := publisher(t, b, messaging.PublisherConfig{})
		go1 := make(chan struct{})
		var gap atomic.Int64
		var read atomic.Int64
		run(t, b, messaging.ConsumerConfig{
			Concurrency: 1,
			OnEvent: func(_ context.Context, e messaging.Event) {
				if e.Kind == messaging.Gap {
					gap.Add(e.Gap)
				}
			},
		}, func(context.Context, *messaging.Message) error {
			<-go1
			read.Add(1)
			return nil
		})
		for i := range 100 {
			require.NoError(t, p.Publish(t.Context(), message(fmt.Sprint(i))))
			synctest.Wait()
		}
		close(go1)
		time.Sleep(time.Second)
		require.Equal(t, int64(100), read.Load()+gap.Load())
		require.Equal(t, int64(11), read.Load(), "the one in hand and those that were kept")
	})
}

func TestHandledMessagesAreKeptForMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxAge: time.Hour})
		p := publisher(t, b, messaging.PublisherConfig{})
		run(t, b, messaging.ConsumerConfig{Group: "g"}, ok)
		count := func() int64 {
			c, stop := run(t, b, messaging.ConsumerConfig{Start: messaging.Earliest()}, ok)
			time.Sleep(time.Second)
			stop()
			return c.Stats().Received
		}
		require.NoError(t, p.Publish(t.Context(), message("old")))
		time.Sleep(30 * time.Minute)
		require.NoError(t, p.Publish(t.Context(), message("new")))
		require.Equal(t, int64(2), count())
		time.Sleep(30 * time.Minute)
		require.Equal(t, int64(1), count())
	})
}

func TestTheDedupeWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{Dedupe: time.Minute})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g"}, ok)
		p := publisher(t, b, messaging.PublisherConfig{})
		for range 5 {
			require.NoError(t, p.Publish(t.Context(), &messaging.Message{Topic: "orders", ID: "one"}))
			time.Sleep(25 * time.Second)
		}
		require.Equal(t, int64(2), c.Stats().Handled, "a duplicate does not renew the window")
	})
}

// A confirmation that is lost is asked for again under the same ID, and nothing is doubled.
func TestALostConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g"}, ok)
		b.Inject(membus.Fault{LoseConfirms: 1, RefuseSends: 1})
		require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(t.Context(), message("a"), message("b")))
		time.Sleep(time.Second)
		require.Equal(t, int64(2), c.Stats().Handled)
	})
}

func TestADuplicateOfTheTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g"}, ok)
		b.Inject(membus.Fault{Duplicate: 1})
		require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(t.Context(), message("a")))
		time.Sleep(time.Second)
		require.Equal(t, int64(2), c.Stats().Handled)
	})
}

func TestProvision(t *testing.T) {
	b := newBus(t, membus.Config{Strict: true})
	ctx := t.Context()
	require.NoError(t, b.Provision(ctx, messaging.TopicSpec{Name: "orders", MaxAge: time.Hour}))
	require.NoError(t, b.Provision(ctx, messaging.TopicSpec{Name: "orders", MaxAge: time.Hour}), "the same again")
	err := b.Provision(ctx, messaging.TopicSpec{Name: "orders", MaxAge: 2 * time.Hour, MaxBytes: 5}, messaging.TopicSpec{Name: "a b"})
	require.ErrorContains(t, err, "MaxAge")
	require.ErrorContains(t, err, "MaxBytes")
	require.ErrorIs(t, err, messaging.ErrInvalid)
	require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(ctx, message("a"), &messaging.Message{Topic: "orders.dead"}))
}

// Trap: polling. Nothing waits longer than it must: no virtual time passes between publish and handler.
func TestDeliveryTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		at := make(chan time.Time, 1)
		run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			at <- time.Now()
			return nil
		})
		time.Sleep(time.Hour)
		began := time.Now()
		require.NoError(t, publisher(t, b, messaging.PublisherConfig{}).Publish(t.Context(), message("a")))
		require.Zero(t, (<-at).Sub(began))
	})
}

// In real time, with the race detector: nothing is lost and nothing runs twice, in order where it was asked for.
func TestUnderLoad(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			const publishers, each, keys = 4, 1500, 7
			b := newBus(t, membus.Config{MaxMessages: 500})
			var mu sync.Mutex
			last := map[string]int{}
			handled, all := 0, make(chan struct{})
			handler := func(_ context.Context, m *messaging.Message) error {
				var who, n int
				if _, err := fmt.Sscan(string(m.Body), &who, &n); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				lane := fmt.Sprint(who, " ", m.Key)
				if ordered && n <= last[lane] {
					t.Errorf("%s: %d after %d", lane, n, last[lane])
				}
				last[lane] = n
				if handled++; handled == publishers*each {
					close(all)
				}
				return nil
			}
			for range 3 {
				run(t, b, messaging.ConsumerConfig{Group: "g", Ordered: ordered, Buffer: 8}, handler)
			}
			var wg sync.WaitGroup
			for who := range publishers {
				p := publisher(t, b, messaging.PublisherConfig{})
				wg.Go(func() {
					for n := 1; n <= each; n++ {
						m := message(fmt.Sprint(who, " ", n))
						m.Key = fmt.Sprint("k", n%keys)
						if err := p.Publish(context.Background(), m); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			<-all
		})
	}
}

// A unit test of a service, with a broker's behaviour and without its time: half an hour of outage in a moment.
func Example() {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		panic(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		panic(err)
	}
	bus.Inject(membus.Fault{LoseConfirms: 1}) // the first confirmation is lost: it is asked for again, under the same ID
	if err := publisher.Publish(context.Background(), &messaging.Message{Topic: "orders", Body: []byte("A-1")}); err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	consumer, err := messaging.NewConsumer(bus, "orders", func(_ context.Context, m *messaging.Message) error {
		fmt.Printf("%s, delivery %d\n", m.Body, m.Attempt)
		stop()
		return nil
	}, messaging.ConsumerConfig{Group: "billing"})
	if err != nil {
		panic(err)
	}
	if err := consumer.Run(ctx); err != nil {
		panic(err)
	}
	// Output: A-1, delivery 1
}

// CloudEvents: an ID is unique for its source, no more. Of two tenants that count from one, both are heard, and buried.
func TestOneIDOfTwoSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{})
		c, _ := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			return messaging.Reject(errors.New("no"))
		})
		p := publisher(t, b, messaging.PublisherConfig{})
		for _, tenant := range []string{"/one", "/two", "/one"} {
			require.NoError(t, p.Publish(t.Context(), &messaging.Message{Topic: "orders", ID: "1", Source: tenant}))
		}
		time.Sleep(time.Second)
		require.Equal(t, int64(2), c.Stats().Dead)
		dead, _ := messaging.NewConsumer(b, "orders.dead", ok, messaging.ConsumerConfig{Start: messaging.Earliest()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, dead.Run(ctx))
		require.Equal(t, int64(2), dead.Stats().Received)
	})
}
