package membus_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

// BenchmarkPipe is one publisher and one consumer, 256 bytes a message, batches of the named size.
func BenchmarkPipe(b *testing.B) {
	for _, c := range []struct {
		name                       string
		batch, concurrency, groups int
	}{
		{"publish=1/concurrency=16", 1, 16, 1},
		{"publish=64/concurrency=16", 64, 16, 1},
		{"publish=64/concurrency=1/buffer=63", 64, 1, 1},
		{"publish=64/concurrency=16/groups=4", 64, 16, 4},
	} {
		b.Run(c.name, func(b *testing.B) { pipe(b, c.batch, c.concurrency, c.groups) })
	}
}

func pipe(b *testing.B, batch, concurrency, groups int) {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var handled atomic.Int64
	all := make(chan struct{})
	total := int64(b.N) * int64(groups)
	ended := make(chan error, groups)
	for g := range groups {
		c, err := messaging.NewConsumer(bus, "bench", func(context.Context, *messaging.Message) error {
			if handled.Add(1) == total {
				close(all)
			}
			return nil
		}, messaging.ConsumerConfig{Group: string(rune('a' + g)), Concurrency: concurrency, Buffer: 64 - concurrency})
		if err != nil {
			b.Fatal(err)
		}
		go func() { ended <- c.Run(ctx) }()
		<-c.Ready()
	}
	body := make([]byte, 256)
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += batch {
		n := min(batch, b.N-sent)
		m := make([]*messaging.Message, n)
		for i := range m {
			m[i] = &messaging.Message{Topic: "bench", Body: body}
		}
		if err := p.Publish(ctx, m...); err != nil {
			b.Fatal(err)
		}
	}
	<-all
	b.StopTimer()
	cancel()
	for range groups {
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
