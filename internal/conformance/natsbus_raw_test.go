package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

func TestRoundTrip(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{Prefix: "it."})
	provision(t, b, "orders.created")
	sub := open(t, b, spec("orders.created", "billing"))
	defer closeSub(t, sub)

	m := &messaging.Message{
		ID: "id with spaces, 100 % \"ünïcode\"", Topic: "orders.created", Key: "k 1", Type: "t", Source: "/s",
		Header: messaging.Header{"content-type": "text/plain", "a-b": "wert ä", "ce-subject": "x y"},
		Body:   []byte{0, 1, 2}, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	send(t, b, m)
	d := receive(t, sub, 1, 5*time.Second)[0]
	want := *m
	want.Attempt, want.Group, want.Cursor = 1, "billing", "1"
	require.NoError(t, d.Malformed)
	require.Equal(t, want, *d.Message)
	require.WithinDuration(t, time.Now().Add(30*time.Second), d.Until, 2*time.Second)
	done(t, sub, d)
}

// A message published right after Open has returned is not missed, also with Latest.
func TestPublishRightAfterOpen(t *testing.T) {
	n := startNATS(t, false)
	b, other := newBus(t, n.conn(), natsbus.Config{}), newBus(t, n.conn(), natsbus.Config{})
	core, err := natsbus.NewCore(n.conn(), natsbus.CoreConfig{Prefix: "core."})
	require.NoError(t, err)
	otherCore, err := natsbus.NewCore(n.conn(), natsbus.CoreConfig{Prefix: "core."})
	require.NoError(t, err)
	provision(t, b, "t")
	for i := range 300 {
		s := spec("t", fmt.Sprintf("g%d", i))
		s.Start = messaging.Latest()
		sender := messaging.Sender(other)
		var sub messaging.Subscription
		switch i % 3 {
		case 0:
			sub = open(t, b, s)
		case 1:
			s.Group = ""
			sub = open(t, b, s)
		default:
			sub, sender = open(t, core, s), otherCore
		}
		id := fmt.Sprint(i)
		send(t, sender, message("t", id))
		require.Equal(t, []string{id}, ids(receive(t, sub, 1, 5*time.Second)))
		closeSub(t, sub)
	}
}

func TestSendNamesEachFailure(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	m := messages("t", 5)
	m[2].Body = make([]byte, 1<<20+1)
	err := b.Send(t.Context(), m)
	pe, ok := errors.AsType[*messaging.PublishError](err)
	require.True(t, ok, "%v", err)
	require.Len(t, pe.Failed, 1)
	require.Equal(t, 2, pe.Failed[0].Index)
	require.False(t, pe.Failed[0].Unknown)
	large, ok := errors.AsType[*messaging.TooLargeError](pe.Failed[0].Err)
	require.True(t, ok)
	require.Equal(t, 1<<20, large.Limit)
	require.Greater(t, large.Size, 1<<20)

	sub := open(t, b, spec("t", "g"))
	defer closeSub(t, sub)
	require.ElementsMatch(t, []string{"t-0", "t-1", "t-3", "t-4"}, ids(receive(t, sub, 4, 5*time.Second)))
}

// When a message fails, the later ones of its key are not stored, and named.
func TestSendKeepsTheOrderOfAKey(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	// The stream itself refuses what is larger than 1000 bytes: the client cannot know that before it has sent.
	_, err := newJetStream(t, nc).CreateStream(t.Context(), jetstream.StreamConfig{Name: "t", Subjects: []string{"t"}, MaxMsgSize: 1000})
	require.NoError(t, err)
	m := messages("t", 8)
	for i := range 5 {
		m[i].Key = "a"
	}
	m[2].Body = make([]byte, 2000)
	pe, ok := errors.AsType[*messaging.PublishError](b.Send(t.Context(), m))
	require.True(t, ok)
	require.Len(t, pe.Failed, 3)
	for i, f := range pe.Failed {
		require.Equal(t, 2+i, f.Index)
		require.False(t, f.Unknown)
	}
	sub := open(t, b, spec("t", "g"))
	defer closeSub(t, sub)
	got := ids(receive(t, sub, 5, 5*time.Second))
	require.ElementsMatch(t, []string{"t-0", "t-1", "t-5", "t-6", "t-7"}, got)
}

func TestUnknownTopic(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	begin := time.Now()
	err := b.Send(t.Context(), messages("nowhere", 3))
	require.ErrorIs(t, err, messaging.ErrUnknownTopic)
	pe, _ := errors.AsType[*messaging.PublishError](err)
	require.Len(t, pe.Failed, 3)
	require.False(t, pe.Failed[0].Unknown)
	_, err = b.Open(t.Context(), spec("nowhere", "g"))
	require.ErrorIs(t, err, messaging.ErrUnknownTopic)
	_, err = b.Open(t.Context(), spec("nowhere", ""))
	require.ErrorIs(t, err, messaging.ErrUnknownTopic)
	require.Less(t, time.Since(begin), 3*time.Second)
}

// A topic that the server would choke on never reaches it.
func TestBadTopicsAreRefusedBeforeTheWire(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	core, err := natsbus.NewCore(nc, natsbus.CoreConfig{})
	require.NoError(t, err)
	for _, topic := range []string{"", "a.*", "a.>", ">", "a b", "a..b", ".a", "a.", "ä", strings.Repeat("a", 5000)} {
		for _, s := range []interface {
			messaging.Sender
			messaging.Subscriber
		}{b, core} {
			require.ErrorIs(t, s.Send(t.Context(), []*messaging.Message{message(topic, "1")}), messaging.ErrInvalid, "%.20q", topic)
			_, err := s.Open(t.Context(), spec(topic, "g"))
			require.ErrorIs(t, err, messaging.ErrInvalid, "%.20q", topic)
		}
		require.ErrorIs(t, b.Provision(t.Context(), messaging.TopicSpec{Name: topic}), messaging.ErrInvalid)
	}
	require.True(t, nc.IsConnected())
	require.Zero(t, nc.Stats().Reconnects)
}

func TestDedupe(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "a", "b")
	send(t, b, message("a", "1"))
	send(t, b, message("a", "1"), message("b", "1"))
	for _, topic := range []string{"a", "b"} {
		sub := open(t, b, spec(topic, "g"))
		require.Len(t, tryReceive(t, sub, 2, 300*time.Millisecond), 1, "topic %s", topic)
		closeSub(t, sub)
	}
}

// Send must end with its context, and say that the fate is not known.
func TestSendEndsWithItsContext(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	// A plain subscriber: a responder that never answers.
	_, err := nc.SubscribeSync("silent")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	pe, ok := errors.AsType[*messaging.PublishError](b.Send(ctx, messages("silent", 3)))
	require.True(t, ok)
	require.Less(t, time.Since(begin), time.Second)
	require.Len(t, pe.Failed, 3)
	for _, f := range pe.Failed {
		require.True(t, f.Unknown)
		require.ErrorIs(t, f.Err, context.DeadlineExceeded)
	}
}

// A context that has already ended: nothing is sent, and that is known.
func TestSendWithAnEndedContext(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pe, ok := errors.AsType[*messaging.PublishError](b.Send(ctx, messages("t", 1)))
	require.True(t, ok)
	require.False(t, pe.Failed[0].Unknown)
	require.ErrorIs(t, pe.Failed[0].Err, context.Canceled)
}

// A connection that is lost after the publish leaves the fate unknown at once; one that was lost before is waited for.
func TestSendOverALostConnection(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	_, err := nc.SubscribeSync("silent")
	require.NoError(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		time.Sleep(100 * time.Millisecond)
		n.stop()
		time.Sleep(300 * time.Millisecond)
		n.start()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pe, ok := errors.AsType[*messaging.PublishError](b.Send(ctx, messages("silent", 1)))
	require.True(t, ok)
	require.True(t, pe.Failed[0].Unknown)
	require.NoError(t, ctx.Err())
	require.NoError(t, b.Send(ctx, messages("t", 10)))
}

func TestConcurrentSends(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				m := make([]*messaging.Message, 1+j%7)
				for k := range m {
					m[k] = message("t", fmt.Sprintf("%d-%d-%d", i, j, k))
					m[k].Key = fmt.Sprint(k % 2)
				}
				if err := b.Send(t.Context(), m); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	wg.Wait()
	info, err := newJetStream(t, n.conn()).Stream(t.Context(), "t")
	require.NoError(t, err)
	want := 0
	for j := range 50 {
		want += 16 * (1 + j%7)
	}
	require.EqualValues(t, want, info.CachedInfo().State.Msgs)
}

func TestVerdicts(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirm=%v", confirm), func(t *testing.T) {
			n := startNATS(t, false)
			b := newBus(t, n.conn(), natsbus.Config{ConfirmAcks: confirm})
			provision(t, b, "t")
			sub := open(t, b, spec("t", "g"))
			defer closeSub(t, sub)
			send(t, b, messages("t", 4)...)
			d := receive(t, sub, 4, 5*time.Second)
			done(t, sub, d[0])
			require.ErrorIs(t, settle(t, sub, messaging.Done, 0, d[0])[0].Err, messaging.ErrLeaseLost, "a second verdict")
			require.NoError(t, settle(t, sub, messaging.Refuse, 0, d[1])[0].Err)
			require.NoError(t, settle(t, sub, messaging.Release, 0, d[2])[0].Err)
			begin := time.Now()
			require.NoError(t, settle(t, sub, messaging.Retry, 400*time.Millisecond, d[3])[0].Err)
			again := receive(t, sub, 1, 300*time.Millisecond)[0]
			require.Equal(t, "t-2", again.Message.ID)
			require.Equal(t, 2, again.Message.Attempt)
			late := receive(t, sub, 1, 5*time.Second)[0]
			require.Equal(t, "t-3", late.Message.ID)
			require.GreaterOrEqual(t, time.Since(begin), 390*time.Millisecond)
			lag, err := sub.(messaging.Lagger).Lag(t.Context())
			require.NoError(t, err)
			require.Equal(t, messaging.Lag{Messages: 0, Unacked: 2}, lag)
			done(t, sub, again, late)
		})
	}
}

// A verdict that comes after the lease is never sent: it would settle the newer delivery.
func TestStaleVerdictIsNotSent(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	s := spec("t", "g")
	s.Lease = 300 * time.Millisecond
	first, second := open(t, b, s), open(t, b, s)
	defer closeSub(t, first)
	defer closeSub(t, second)
	send(t, b, messages("t", 1)...)
	d := receive(t, first, 1, 5*time.Second)[0]
	again := receive(t, second, 1, 5*time.Second)[0] // while the first stands still
	require.Equal(t, 2, again.Message.Attempt)
	for _, a := range []messaging.Action{messaging.Done, messaging.Release, messaging.Extend} {
		require.ErrorIs(t, settle(t, first, a, 0, d)[0].Err, messaging.ErrLeaseLost)
	}
	lag, err := second.(messaging.Lagger).Lag(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, lag.Unacked, "the newer delivery is still open")
	done(t, second, again)
}

// After the consumer was deleted, a verdict would hit the next one of the same name, whose deliveries count from one.
func TestNoVerdictAfterDeletion(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	old := open(t, b, spec("t", "g"))
	send(t, b, messages("t", 1)...)
	d := receive(t, old, 1, 5*time.Second)[0]
	time.AfterFunc(50*time.Millisecond, func() { _ = newJetStream(t, nc).DeleteConsumer(context.Background(), "t", "g") })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := old.Receive(ctx, make([]messaging.Delivery, 1))
	require.ErrorContains(t, err, "deleted")
	next := open(t, b, spec("t", "g"))
	defer closeSub(t, next)
	again := receive(t, next, 1, 5*time.Second)[0]
	require.Equal(t, 1, again.Message.Attempt)
	require.ErrorIs(t, settle(t, old, messaging.Done, 0, d)[0].Err, messaging.ErrLeaseLost)
	closeSub(t, old)
	lag, err := next.(messaging.Lagger).Lag(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, lag.Unacked)
	done(t, next, again)
}

func TestExtend(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	s := spec("t", "g")
	s.Lease = 400 * time.Millisecond
	sub := open(t, b, s)
	defer closeSub(t, sub)
	send(t, b, messages("t", 1)...)
	d := receive(t, sub, 1, 5*time.Second)[0]
	for range 5 {
		require.Empty(t, tryReceive(t, sub, 1, 200*time.Millisecond))
		e := settle(t, sub, messaging.Extend, 0, d)[0]
		require.NoError(t, e.Err)
		require.WithinDuration(t, time.Now().Add(s.Lease), e.Until, 100*time.Millisecond)
	}
	done(t, sub, d)
}

// What was asked for and not delivered goes to the other member at once.
func TestHandBackIsImmediate(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	first, second := open(t, b, spec("t", "g")), open(t, b, spec("t", "g"))
	defer closeSub(t, second)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = b.Send(t.Context(), messages("t", 1))
	}()
	d := receive(t, first, 1, 5*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	into := make([]messaging.Delivery, 16)
	time.AfterFunc(50*time.Millisecond, func() { _ = b.Send(t.Context(), messages("t", 2)[1:]) })
	k, err := first.Receive(ctx, into) // returns the second message; 15 more are asked for
	require.NoError(t, err)
	require.Equal(t, 1, k)
	send(t, b, messages("t", 17)[2:]...)
	time.Sleep(50 * time.Millisecond) // they are on their way to the first member
	cancel()
	_, err = first.Receive(ctx, into[1:])
	require.ErrorIs(t, err, context.Canceled)
	begin := time.Now()
	settle(t, first, messaging.Release, 0, d[0], into[0])
	got := receive(t, second, 17, 2*time.Second)
	require.Less(t, time.Since(begin), time.Second)
	require.Empty(t, tryReceive(t, second, 1, 50*time.Millisecond))
	closeSub(t, first)
	done(t, second, got...)
}

func TestForeignMessages(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	js := newJetStream(t, nc)
	publish := func(h nats.Header, body string) {
		_, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "t", Header: h, Data: []byte(body)})
		require.NoError(t, err)
	}
	publish(nil, "plain")
	publish(nats.Header{"Nats-Msg-Id": {"mine"}, "X-Trace": {"a", "b"}, "__TypeId__": {"x"}, "X-Bin": {"\xff"}}, "headers")
	publish(nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"\"quoted \\\" id\""}, "CE-Type": {"a%20b"}, "ce-datacontenttype": {"text/plain"}}, "event")
	publish(nats.Header{"ce-specversion": {"0.3"}, "ce-id": {"old"}}, "old")
	publish(nats.Header{"ce-id": {"time"}, "ce-time": {"yesterday"}}, "time")
	publish(nats.Header{"ce-id": {"%C0%A0"}}, "overlong")
	publish(nats.Header{"ce-id": {"bin"}, "ce-partitionkey": {"%00%01"}}, "key")

	sub := open(t, b, spec("t", "g"))
	defer closeSub(t, sub)
	d := receive(t, sub, 7, 5*time.Second)
	require.Equal(t, "t/1", d[0].Message.ID)
	require.Equal(t, "plain", string(d[0].Message.Body))
	require.False(t, d[0].Message.Time.IsZero())
	require.Equal(t, "mine", d[1].Message.ID)
	require.Equal(t, messaging.Header{"x-trace": "a"}, d[1].Message.Header)
	require.Equal(t, "quoted \" id", d[2].Message.ID)
	require.Equal(t, "a b", d[2].Message.Type)
	require.Equal(t, messaging.Header{"content-type": "text/plain"}, d[2].Message.Header)
	for i, malformed := range []bool{false, false, false, true, true, true, false} {
		require.Equal(t, malformed, d[i].Malformed != nil, "message %d: %v", i, d[i].Malformed)
		require.NotEmpty(t, d[i].Message.ID)
	}
	require.Equal(t, "AAE=", d[6].Message.Key)
	done(t, sub, d...)
}

// Byte bounds: no more than MaxBytes is in hand, and a message larger than that passes alone.
func TestMaxBytes(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	s := spec("t", "g")
	s.MaxBytes = 1 << 20
	m := messages("t", 40)
	for i := range m {
		m[i].Body = make([]byte, 200<<10)
	}
	m[20].Body = make([]byte, 1<<20-1000)
	m[21].Body = nil
	send(t, b, m...)
	sub := open(t, b, s)
	defer closeSub(t, sub)
	total := 0
	for total < len(m) {
		into := make([]messaging.Delivery, 16)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		k, err := sub.Receive(ctx, into)
		require.NoError(t, err)
		bytes := 0
		for _, d := range into[:k] {
			bytes += len(d.Message.Body)
		}
		// Whatever more comes while this is unsettled counts, too.
		short, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
		more := make([]messaging.Delivery, 16-k)
		j, _ := sub.Receive(short, more)
		for _, d := range more[:j] {
			bytes += len(d.Message.Body)
		}
		require.LessOrEqual(t, bytes, 1<<20)
		done(t, sub, append(into[:k:k], more[:j]...)...)
		total += k + j
		stop()
		cancel()
	}
}

func TestReaders(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	send(t, b, messages("t", 10)...)
	start := func(s messaging.Start) messaging.Spec {
		sp := spec("t", "")
		sp.Start = s
		return sp
	}
	all := open(t, b, start(messaging.Earliest()))
	defer closeSub(t, all)
	d := receive(t, all, 10, 5*time.Second)
	require.Equal(t, "t-0", d[0].Message.ID)
	require.True(t, d[0].Until.IsZero())
	done(t, all, d...)

	after := open(t, b, start(messaging.After(d[6].Message.Cursor)))
	defer closeSub(t, after)
	require.Equal(t, []string{"t-7", "t-8", "t-9"}, ids(receive(t, after, 3, 5*time.Second)))

	byTime := open(t, b, start(messaging.FromTime(time.Now().Add(-time.Hour))))
	defer closeSub(t, byTime)
	require.Len(t, receive(t, byTime, 10, 5*time.Second), 10)

	_, err := b.Open(t.Context(), start(messaging.After("1", "2")))
	require.ErrorIs(t, err, messaging.ErrUnsupported)
	_, err = b.Open(t.Context(), start(messaging.After("x")))
	require.ErrorIs(t, err, messaging.ErrInvalid)
}

// Messages that the stream dropped before they were read are reported, to a reader and to a group.
func TestGap(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	_, err := newJetStream(t, nc).CreateStream(t.Context(), jetstream.StreamConfig{Name: "t", Subjects: []string{"t"}, MaxMsgs: 10})
	require.NoError(t, err)
	for _, group := range []string{"", "g"} {
		var ev events
		s := spec("t", group)
		s.Start = messaging.Latest()
		s.Report = ev.report
		sub := open(t, b, s)
		for i := range 20 {
			send(t, b, message("t", fmt.Sprintf("%q%d", group, i)))
		}
		d := receive(t, sub, 10, 5*time.Second)
		require.Equal(t, fmt.Sprintf("%q10", group), d[0].Message.ID)
		_, gap := ev.count(messaging.Gap)
		require.EqualValues(t, 10, gap, "group %q", group)
		done(t, sub, d...)
		closeSub(t, sub)
	}
}

func TestExistingDurable(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	js := newJetStream(t, nc)
	_, err := js.CreateConsumer(t.Context(), "t", jetstream.ConsumerConfig{
		Durable: "g", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxDeliver: 3, MaxAckPending: 4,
	})
	require.NoError(t, err)
	_, err = b.Open(t.Context(), spec("t", "g"))
	for _, want := range []string{"ack wait", "5s", "30s", "max deliver", "max ack pending", "filter"} {
		require.ErrorContains(t, err, want)
	}
	c, err := js.Consumer(t.Context(), "t", "g")
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, c.CachedInfo().Config.AckWait, "unchanged")

	// A rolling deployment may change Concurrency, and where a group would begin.
	s := spec("t", "rolling")
	closeSub(t, open(t, b, s))
	s.Slots, s.Start = 500, messaging.Latest()
	closeSub(t, open(t, b, s))
	s.Slots = 1
	closeSub(t, open(t, b, s))
	s.Ordered = true
	_, err = b.Open(t.Context(), s)
	require.ErrorIs(t, err, messaging.ErrUnsupported)
}

func TestProvision(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{Prefix: "p."})
	ctx := t.Context()
	topic := messaging.TopicSpec{Name: "a.b", MaxAge: time.Hour, MaxBytes: 1 << 20}
	require.NoError(t, b.Provision(ctx, topic, messaging.TopicSpec{Name: "a_b"}))
	require.NoError(t, b.Provision(ctx, topic), "twice")
	js := newJetStream(t, nc)
	for _, name := range []string{"p=a=b", "p=a=b=dead", "p=a_b", "p=a_b=dead"} {
		s, err := js.Stream(ctx, name)
		require.NoError(t, err, name)
		c := s.CachedInfo().Config
		require.Equal(t, jetstream.FileStorage, c.Storage)
		require.Equal(t, 2*time.Minute, c.Duplicates)
		require.True(t, c.AllowMsgTTL)
		require.True(t, c.AllowMsgSchedules)
	}
	topic.MaxAge, topic.MaxBytes = 2*time.Hour, 2<<20
	err := b.Provision(ctx, topic)
	for _, want := range []string{"max age is 1h0m0s, wanted 2h0m0s", "max bytes is 1048576, wanted 2097152", `"a.b"`, "p=a=b=dead"} {
		require.ErrorContains(t, err, want)
	}
	s, err := js.Stream(ctx, "p=a=b")
	require.NoError(t, err)
	require.Equal(t, time.Hour, s.CachedInfo().Config.MaxAge, "unchanged")
	require.ErrorIs(t, b.Provision(ctx, messaging.TopicSpec{Name: "x", Partitions: 4}), messaging.ErrUnsupported)
	require.ErrorIs(t, b.Provision(ctx, messaging.TopicSpec{Name: "x", MaxAge: time.Minute}), messaging.ErrUnsupported)
}

func TestCore(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	c, err := natsbus.NewCore(nc, natsbus.CoreConfig{Pending: 10})
	require.NoError(t, err)
	ctx := t.Context()

	_, err = c.Request(ctx, message("nobody", "1"))
	require.ErrorIs(t, err, messaging.ErrNoResponder)
	_, err = nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(append([]byte("re: "), m.Data...)) })
	require.NoError(t, err)
	reply, err := c.Request(ctx, message("echo", "1"))
	require.NoError(t, err)
	require.Equal(t, "re: 1", string(reply.Body))

	// The other half: a member of a group that answers.
	ps := spec("prices", "g")
	ps.Start = messaging.Latest()
	prices := open(t, c, ps)
	answered := make(chan *messaging.Message, 1)
	go func() {
		reply, err := c.Request(ctx, message("prices", "how much?"))
		if err != nil {
			t.Errorf("Request: %v", err)
		}
		answered <- reply
	}()
	question := receive(t, prices, 1, 5*time.Second)[0]
	list := []messaging.Settlement{{Ref: question.Ref, Reply: &messaging.Message{ID: "r", Type: "price", Body: []byte("42")}}}
	require.NoError(t, prices.Settle(ctx, list))
	require.NoError(t, list[0].Err)
	reply = <-answered
	require.Equal(t, "42", string(reply.Body))
	require.Equal(t, "price", reply.Type)
	closeSub(t, prices)

	s := spec("t", "")
	s.Start = messaging.Latest()
	var ev events
	s.Report = ev.report
	reader := open(t, c, s)
	s.Group = "g"
	a, b := open(t, c, s), open(t, c, s)
	send(t, c, messages("t", 10)...)
	got := receive(t, reader, 10, 5*time.Second)
	require.Equal(t, "t-0", got[0].Message.ID)
	require.Len(t, append(tryReceive(t, a, 10, 100*time.Millisecond), tryReceive(t, b, 10, 100*time.Millisecond)...), 10)

	send(t, c, messages("t", 50)...)
	receive(t, reader, 10, 5*time.Second)
	require.Empty(t, tryReceive(t, reader, 1, 100*time.Millisecond))
	_, gap := ev.count(messaging.Gap)
	require.GreaterOrEqual(t, gap, int64(40))
	for _, sub := range []messaging.Subscription{reader, a, b} {
		closeSub(t, sub)
		closeSub(t, sub)
	}
	s.Start = messaging.Earliest()
	_, err = c.Open(ctx, s)
	require.ErrorIs(t, err, messaging.ErrUnsupported)
	require.True(t, nc.IsConnected())
}
