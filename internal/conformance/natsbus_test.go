package conformance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

// natsServer is an embedded server that can be stopped and started again on its store and port.
type natsServer struct {
	t    testing.TB
	opts server.Options
	*server.Server
}

// startNATS starts a server on a free port; inProcess, for bubbles, without one.
func startNATS(t testing.TB, inProcess bool) *natsServer {
	t.Helper()
	if !inProcess {
		usedOutside.Store(true)
	}
	n := &natsServer{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: -1, DontListen: inProcess, JetStream: true, StoreDir: t.TempDir(),
		JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 28, NoLog: true, NoSigs: true,
	}}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	opts := n.opts
	s, err := server.NewServer(&opts)
	require.NoError(n.t, err)
	s.Start()
	require.True(n.t, s.ReadyForConnections(10*time.Second), "the server is not ready")
	n.Server = s
	if !n.opts.DontListen {
		n.opts.Port = opts.Port
	}
}

func (n *natsServer) stop() {
	n.Shutdown()
	n.WaitForShutdown()
}

// conn returns a connection that comes back at once.
func (n *natsServer) conn(opts ...nats.Option) *nats.Conn {
	n.t.Helper()
	opts = append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	url := ""
	if n.opts.DontListen {
		opts = append(opts, nats.InProcessServer(n.Server))
	} else {
		url = fmt.Sprintf("nats://127.0.0.1:%d", n.opts.Port)
	}
	nc, err := nats.Connect(url, opts...)
	require.NoError(n.t, err)
	n.t.Cleanup(nc.Close)
	return nc
}

func newBus(t testing.TB, nc *nats.Conn, c natsbus.Config) *natsbus.Bus {
	t.Helper()
	b, err := natsbus.New(nc, c)
	require.NoError(t, err)
	return b
}

func newJetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func provision(t testing.TB, b *natsbus.Bus, topics ...string) {
	t.Helper()
	for _, topic := range topics {
		require.NoError(t, b.Provision(t.Context(), messaging.TopicSpec{Name: topic}))
	}
}

// events collects what an adapter reports.
type events struct {
	mu  sync.Mutex
	all []messaging.Event
}

func (e *events) report(_ context.Context, ev messaging.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) count(kind messaging.EventKind) (n int, gap int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Kind == kind {
			n++
			gap += ev.Gap
		}
	}
	return n, gap
}

func spec(topic, group string) messaging.Spec {
	s := messaging.Spec{
		Topic: topic, Group: group, Start: messaging.Earliest(), Lease: 30 * time.Second, Slots: 16, Parked: 100,
		MaxBytes: 8 << 20, Report: func(context.Context, messaging.Event) {},
	}
	return s
}

func open(t testing.TB, s messaging.Subscriber, spec messaging.Spec) messaging.Subscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sub, err := s.Open(ctx, spec)
	require.NoError(t, err)
	return sub
}

func closeSub(t testing.TB, sub messaging.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, sub.Close(ctx))
}

// receive waits for exactly n deliveries within d.
func receive(t testing.TB, sub messaging.Subscription, n int, d time.Duration) []messaging.Delivery {
	t.Helper()
	got := tryReceive(t, sub, n, d)
	require.Len(t, got, n, "deliveries within %v", d)
	return got
}

// tryReceive waits for at most n deliveries within d.
func tryReceive(t testing.TB, sub messaging.Subscription, n int, d time.Duration) []messaging.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all []messaging.Delivery
	for len(all) < n {
		into := make([]messaging.Delivery, n-len(all))
		k, err := sub.Receive(ctx, into)
		all = append(all, into[:k]...)
		if err != nil {
			require.Error(t, ctx.Err(), "Receive: %v", err)
			break
		}
	}
	return all
}

// settle gives all deliveries one verdict and returns the answers.
func settle(t testing.TB, sub messaging.Subscription, a messaging.Action, delay time.Duration, d ...messaging.Delivery) []messaging.Settlement {
	t.Helper()
	list := make([]messaging.Settlement, len(d))
	for i := range d {
		list[i] = messaging.Settlement{Ref: d[i].Ref, Action: a, Delay: delay}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, sub.Settle(ctx, list))
	return list
}

// done acknowledges d.
func done(t testing.TB, sub messaging.Subscription, d ...messaging.Delivery) {
	t.Helper()
	for _, s := range settle(t, sub, messaging.Done, 0, d...) {
		require.NoError(t, s.Err)
	}
}

func message(topic, id string) *messaging.Message {
	return &messaging.Message{ID: id, Topic: topic, Type: "test", Source: "/test", Time: time.Now(), Body: []byte(id)}
}

func messages(topic string, n int) []*messaging.Message {
	m := make([]*messaging.Message, n)
	for i := range m {
		m[i] = message(topic, fmt.Sprintf("%s-%d", topic, i))
	}
	return m
}

func send(t testing.TB, s messaging.Sender, m ...*messaging.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Send(ctx, m))
}

func ids(d []messaging.Delivery) []string {
	s := make([]string, len(d))
	for i := range d {
		s[i] = d[i].Message.ID
	}
	return s
}
