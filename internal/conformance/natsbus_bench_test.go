package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

const benchBatch = 100

var benchMessage *messaging.Message

// BenchmarkNATSPublish publishes 100 messages a call and waits for all confirmations: ours beside PublishMsgAsync with
// the same bytes and headers.
func BenchmarkNATSPublish(b *testing.B) {
	body := make([]byte, 256)
	id := 0
	next := func() []*messaging.Message {
		m := make([]*messaging.Message, benchBatch)
		for i := range m {
			id++
			m[i] = &messaging.Message{ID: fmt.Sprint("b", id), Topic: "t", Type: "x", Source: "/bench", Time: time.Now(), Body: body}
		}
		return m
	}
	b.Run("natsbus", func(b *testing.B) {
		n := startNATS(b, false)
		bus := newBus(b, n.conn(), natsbus.Config{})
		provision(b, bus, "t")
		b.ReportAllocs()
		for b.Loop() {
			if err := bus.Send(context.Background(), next()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("PublishMsgAsync", func(b *testing.B) {
		n := startNATS(b, false)
		nc := n.conn()
		provision(b, newBus(b, nc, natsbus.Config{}), "t")
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			futures := make([]jetstream.PubAckFuture, 0, benchBatch)
			for _, m := range next() {
				f, err := js.PublishMsgAsync(&nats.Msg{Subject: "t", Data: m.Body, Header: nats.Header{
					"Nats-Msg-Id": {"t/" + m.ID}, "ce-specversion": {"1.0"}, "ce-id": {m.ID}, "ce-type": {m.Type},
					"ce-source": {m.Source}, "ce-time": {m.Time.UTC().Format(time.RFC3339Nano)},
				}})
				if err != nil {
					b.Fatal(err)
				}
				futures = append(futures, f)
			}
			for _, f := range futures {
				select {
				case <-f.Ok():
				case err := <-f.Err():
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "msg/s")
	})
}

// BenchmarkNATSConsume receives and acknowledges with at most 256 messages in flight: ours, alone and under a Consumer,
// beside a pull loop by hand with the same bound.
func BenchmarkNATSConsume(b *testing.B) {
	const slots = 256
	fill := func(b *testing.B) (*natsServer, *natsbus.Bus) {
		n := startNATS(b, false)
		bus := newBus(b, n.conn(), natsbus.Config{})
		provision(b, bus, "t")
		body := make([]byte, 256)
		for i := 0; i < b.N; i += 1000 {
			m := make([]*messaging.Message, min(1000, b.N-i))
			for j := range m {
				m[j] = &messaging.Message{ID: fmt.Sprint(i + j), Topic: "t", Type: "x", Source: "/bench", Time: time.Now(), Body: body}
			}
			send(b, bus, m...)
		}
		b.ReportAllocs()
		b.ResetTimer()
		return n, bus
	}
	rate := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s") }
	b.Run("natsbus", func(b *testing.B) {
		_, bus := fill(b)
		s := spec("t", "g")
		s.Slots = slots
		sub := open(b, bus, s)
		into := make([]messaging.Delivery, slots)
		verdicts := make([]messaging.Settlement, 0, slots)
		for n := 0; n < b.N; {
			k, err := sub.Receive(context.Background(), into)
			require.NoError(b, err)
			verdicts = verdicts[:0]
			for _, d := range into[:k] {
				verdicts = append(verdicts, messaging.Settlement{Ref: d.Ref, Action: messaging.Done})
			}
			require.NoError(b, sub.Settle(context.Background(), verdicts))
			n += k
		}
		rate(b)
		closeSub(b, sub)
	})
	b.Run("consumer", func(b *testing.B) {
		_, bus := fill(b)
		left := make(chan struct{}, slots)
		c, err := messaging.NewConsumer(bus, "t", func(context.Context, *messaging.Message) error {
			left <- struct{}{}
			return nil
		}, messaging.ConsumerConfig{Group: "g", Concurrency: 16, Buffer: slots - 16})
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		for range b.N {
			<-left
		}
		rate(b)
		cancel()
		require.NoError(b, <-ended)
	})
	b.Run("by hand", func(b *testing.B) {
		n, bus := fill(b)
		closeSub(b, open(b, bus, spec("t", "g")))
		nc := n.conn()
		inbox := nc.NewInbox()
		ch := make(chan *nats.Msg, 4*slots)
		_, err := nc.ChanSubscribe(inbox, ch)
		require.NoError(b, err)
		asked := 0
		for n := 0; n < b.N; {
			if asked <= slots/2 {
				req := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, slots-asked, 30*time.Second, time.Second)
				require.NoError(b, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.t.g", inbox, req))
				asked = slots
			}
			m := <-ch
			if m.Header.Get("Status") != "" {
				continue
			}
			asked--
			n++
			// The duties of any consumer: the message as a value, its place and its attempt.
			meta, err := m.Metadata()
			require.NoError(b, err)
			at, err := time.Parse(time.RFC3339Nano, m.Header.Get("ce-time"))
			require.NoError(b, err)
			benchMessage = &messaging.Message{
				ID: m.Header.Get("ce-id"), Type: m.Header.Get("ce-type"), Source: m.Header.Get("ce-source"), Time: at,
				Body: m.Data, Attempt: int(meta.NumDelivered), Cursor: messaging.Cursor(fmt.Sprint(meta.Sequence.Stream)),
			}
			if err := nc.Publish(m.Reply, []byte("+ACK")); err != nil {
				b.Fatal(err)
			}
		}
		rate(b)
	})
}
