package benchmarks

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/memstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

var body = make([]byte, 256)

// BenchmarkMemory moves messages from one publisher to one consumer in this process, from publish to acknowledgement.
func BenchmarkMemory(b *testing.B) {
	b.Run("tandem", func(b *testing.B) {
		bus, err := membus.New(membus.Config{})
		if err != nil {
			b.Fatal(err)
		}
		p, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
		if err != nil {
			b.Fatal(err)
		}
		var seen sync.WaitGroup
		c, err := messaging.NewConsumer(bus, "t", func(context.Context, *messaging.Message) error {
			seen.Done()
			return nil
		}, messaging.ConsumerConfig{Group: "g"})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := c.Run(ctx); err != nil {
				b.Error(err)
			}
		})
		<-c.Ready()
		b.ReportAllocs()
		for b.Loop() {
			seen.Add(1)
			if err := p.Publish(ctx, &messaging.Message{Topic: "t", Body: body}); err != nil {
				b.Fatal(err)
			}
		}
		seen.Wait()
		b.StopTimer()
		stop()
		running.Wait()
	})
	b.Run("watermill", func(b *testing.B) {
		bus := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
		in, err := bus.Subscribe(b.Context(), "t")
		if err != nil {
			b.Fatal(err)
		}
		var seen sync.WaitGroup
		go func() {
			for m := range in {
				m.Ack()
				seen.Done()
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			seen.Add(1)
			if err := bus.Publish("t", message.NewMessage(watermill.NewUUID(), body)); err != nil {
				b.Fatal(err)
			}
		}
		seen.Wait()
		b.StopTimer()
		if err := bus.Close(); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkClaim claims and completes fresh keys.
func BenchmarkClaim(b *testing.B) {
	b.Run("tandem", func(b *testing.B) {
		s, err := memstore.New(memstore.Config{MaxKeys: 1 << 26})
		if err != nil {
			b.Fatal(err)
		}
		ctx := b.Context()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			k := idempotency.Key{Scope: "bench", ID: strconv.Itoa(i)}
			c, err := s.Begin(ctx, k, idempotency.BeginOptions{Lease: time.Minute})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Complete(ctx, c.Ticket, idempotency.Result{}, time.Second); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mutex-and-map", func(b *testing.B) {
		var mu sync.Mutex
		live := map[string]time.Time{}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			k := strconv.Itoa(i)
			now := time.Now()
			mu.Lock()
			if until, ok := live[k]; !ok || now.After(until) {
				live[k] = now.Add(time.Minute)
			}
			mu.Unlock()
			mu.Lock()
			live[k] = now.Add(time.Second)
			mu.Unlock()
		}
	})
}
