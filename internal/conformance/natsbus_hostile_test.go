package conformance

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

// Deliveries that nobody settles hold their bytes no longer than their lease.
func TestBytesOfLostLeasesAreFree(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	s := spec("t", "g")
	s.Lease, s.MaxBytes = 500*time.Millisecond, 1<<20
	sub := open(t, b, s)
	defer closeSub(t, sub)
	m := messages("t", 2)
	m[0].Body, m[1].Body = make([]byte, 1<<20-2000), make([]byte, 1<<20-2000)
	send(t, b, m...)
	receive(t, sub, 1, 5*time.Second) // and never settled
	again := receive(t, sub, 1, 5*time.Second)
	done(t, sub, again...)
}

// A stream that was deleted and made again is read from its first message: nothing of it was read before.
func TestReaderOfARecreatedStream(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	send(t, b, messages("t", 10)...)
	done(t, sub, receive(t, sub, 10, 5*time.Second)...)
	require.NoError(t, newJetStream(t, nc).DeleteStream(t.Context(), "t"))
	provision(t, b, "t")
	fresh := messages("t", 13)[10:]
	send(t, b, fresh...)
	got := receive(t, sub, 3, 10*time.Second)
	require.Equal(t, []string{"t-10", "t-11", "t-12"}, ids(got))
	require.Equal(t, messaging.Cursor("1"), got[0].Message.Cursor)
}

// A cursor behind the end of the stream is none of this stream: to wait until it gets there would skip all before.
func TestCursorBehindTheEnd(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	send(t, b, messages("t", 3)...)
	s := spec("t", "")
	s.Start = messaging.After("4")
	_, err := b.Open(t.Context(), s)
	require.ErrorIs(t, err, messaging.ErrInvalid)
	s.Group = "g"
	_, err = b.Open(t.Context(), s)
	require.ErrorIs(t, err, messaging.ErrInvalid)
	s.Start = messaging.After("3")
	closeSub(t, open(t, b, s))
	s.Group = ""
	closeSub(t, open(t, b, s))
}

// A server without replicas comes back without its newest messages, and gives their sequences to others: a reader sees
// those.
func TestReaderOfAStreamThatLostItsEnd(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	send(t, b, messages("t", 5)...)
	n.stop()
	backup := t.TempDir()
	require.NoError(t, os.CopyFS(backup, os.DirFS(n.opts.StoreDir)))
	n.start()
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	send(t, b, messages("t", 10)[5:]...)
	done(t, sub, receive(t, sub, 10, 5*time.Second)...)
	n.stop()
	require.NoError(t, os.RemoveAll(n.opts.StoreDir))
	require.NoError(t, os.CopyFS(n.opts.StoreDir, os.DirFS(backup)))
	n.start()
	require.Empty(t, tryReceive(t, sub, 1, time.Second))
	send(t, b, messages("t", 12)[10:]...)
	require.Equal(t, []string{"t-10", "t-11"}, ids(receive(t, sub, 2, 5*time.Second)))
}

// deliveries of the first are not sent.
func TestRecreatedConsumer(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	old := open(t, b, spec("t", "g"))
	send(t, b, messages("t", 2)...)
	d := receive(t, old, 2, 5*time.Second)
	require.NoError(t, newJetStream(t, nc).DeleteConsumer(t.Context(), "t", "g"))
	next := open(t, b, spec("t", "g"))
	defer closeSub(t, next)
	send(t, b, messages("t", 3)[2:]...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var err error
	for err == nil {
		_, err = old.Receive(ctx, make([]messaging.Delivery, 1))
	}
	require.ErrorContains(t, err, "deleted")
	for _, a := range []messaging.Action{messaging.Done, messaging.Release} {
		require.ErrorIs(t, settle(t, old, a, 0, d[0])[0].Err, messaging.ErrLeaseLost)
	}
	closeSub(t, old)
}

// Somebody changes the durable so that it refuses what is asked: the subscription ends and says why.
func TestChangedConsumer(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	sub := open(t, b, spec("t", "g"))
	defer closeSub(t, sub)
	js := newJetStream(t, nc)
	c, err := js.Consumer(t.Context(), "t", "g")
	require.NoError(t, err)
	cfg := c.CachedInfo().Config
	cfg.MaxRequestBatch = 1
	_, err = js.UpdateConsumer(t.Context(), "t", cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = sub.Receive(ctx, make([]messaging.Delivery, 16))
	require.ErrorContains(t, err, "max request batch")
}

// A stream that is away for a moment, as while a server shuts down, does not end a consumer for good. One that stays away
// does.
func TestMissingStream(t *testing.T) {
	const patience = 4 * time.Second
	bubble(t, func(t *testing.T) {
		n := startNATS(t, true)
		nc := n.conn()
		b := newBus(t, nc, natsbus.Config{})
		provision(t, b, "t")
		group, reader := open(t, b, spec("t", "g")), open(t, b, spec("t", ""))
		require.NoError(t, newJetStream(t, nc).DeleteStream(t.Context(), "t"))
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		begin := time.Now()
		var wg sync.WaitGroup
		for _, sub := range []messaging.Subscription{group, reader} {
			wg.Go(func() {
				_, err := sub.Receive(ctx, make([]messaging.Delivery, 1))
				if !errors.Is(err, messaging.ErrUnknownTopic) || time.Since(begin) < patience {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
				_ = sub.Close(ctx)
			})
		}
		wg.Wait()
	})
}

// Lag may be asked while a reader takes another consumer.
func TestLagOfAReaderThatReadsAgain(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = sub.(messaging.Lagger).Lag(ctx)
		}
	})
	stream, err := newJetStream(t, nc).Stream(ctx, "t")
	require.NoError(t, err)
	wg.Go(func() {
		time.Sleep(100 * time.Millisecond)
		for name := range stream.ConsumerNames(ctx).Name() {
			_ = stream.DeleteConsumer(ctx, name)
		}
	})
	_, err = sub.Receive(ctx, make([]messaging.Delivery, 1))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Settings that decide what is kept, or under which name, are compared, too.
func TestProvisionComparesAll(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	_, err := newJetStream(t, nc).CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "t", Subjects: []string{"t"}, MaxAge: 7 * 24 * time.Hour, Duplicates: 2 * time.Minute,
		MaxMsgSize: 100, MaxConsumers: 3,
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "t", Destination: "u"},
		ConsumerLimits:   jetstream.StreamConsumerLimits{MaxAckPending: 7, InactiveThreshold: time.Minute},
	})
	require.NoError(t, err)
	err = b.Provision(t.Context(), messaging.TopicSpec{Name: "t"})
	for _, want := range []string{"max message size", "max consumers", "subject transform", "max ack pending", "inactive threshold"} {
		require.ErrorContains(t, err, want)
	}
}

// What a Core holds for a consumer that does not read is bounded in bytes, too; the rest is a gap.
func TestCoreBoundsItsBytes(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	c, err := natsbus.NewCore(nc, natsbus.CoreConfig{})
	require.NoError(t, err)
	sender, err := natsbus.NewCore(n.conn(), natsbus.CoreConfig{})
	require.NoError(t, err)
	var ev events
	s := spec("t", "")
	s.Start, s.Report = messaging.Latest(), ev.report
	sub := open(t, c, s)
	defer closeSub(t, sub)
	m := messages("t", 80)
	body := make([]byte, 1<<20-1000)
	for i := range m {
		m[i].Body = body
	}
	send(t, sender, m...)
	require.Eventually(t, func() bool { return nc.Stats().InMsgs == 80 }, 10*time.Second, 10*time.Millisecond)
	got := tryReceive(t, sub, 80, 500*time.Millisecond)
	_, gap := ev.count(messaging.Gap)
	require.Len(t, got, 80-int(gap))
	require.LessOrEqual(t, len(got), 65)
	require.GreaterOrEqual(t, len(got), 60)
}

// Before the first connection nobody knows the limit: what is larger is refused for good as soon as it is known.
func TestTooLargeForALateConnection(t *testing.T) {
	n := startNATS(t, false)
	n.stop()
	b := newBus(t, n.conn(nats.RetryOnFailedConnect(true)), natsbus.Config{})
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(100 * time.Millisecond)
		n.start()
	})
	m := message("t", "1")
	m.Body = make([]byte, 1<<20+1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := b.Send(ctx, []*messaging.Message{m})
	wg.Wait()
	large, ok := errors.AsType[*messaging.TooLargeError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 1<<20, large.Limit)
	require.Greater(t, large.Size, 1<<20)
}

// Answers that came too late for their callers leave room for those of the next.
func TestLateAnswersLeaveRoom(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	var mu sync.Mutex
	var held []*nats.Msg
	silent, err := n.conn().Subscribe("slow", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, m)
	})
	require.NoError(t, err)
	flush(t, nc)
	m := messages("slow", 3000)
	for range 3 { // more than there is room for
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		require.Error(t, b.Send(ctx, m))
		cancel()
	}
	mu.Lock()
	for _, h := range held {
		_ = h.Respond([]byte("late"))
	}
	mu.Unlock()
	require.NoError(t, silent.Unsubscribe())
	provision(t, b, "t")
	time.Sleep(200 * time.Millisecond)
	send(t, b, messages("t", 4000)...)
}
