package conformance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
	"github.com/tandemgo/tandem/retry"
)

// A wire dials connections that can be cut, swallow what is written to them, lose one message on its way in, or be slow.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
	hole  atomic.Bool
	lose  atomic.Bool
	delay atomic.Int64
}

func (w *wire) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hole.Store(false)
	w.conns = append(w.conns, c)
	return &wireConn{Conn: c, wire: w}, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

type wireConn struct {
	net.Conn
	wire *wire
}

func (c *wireConn) Write(b []byte) (int, error) {
	if c.wire.hole.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if bytes.HasPrefix(b[:n], []byte("HMSG t ")) && c.wire.lose.CompareAndSwap(true, false) {
			continue
		}
		time.Sleep(time.Duration(c.wire.delay.Load()))
		return n, err
	}
}

// A log notes which messages a handler has seen, and when.
type log struct {
	mu   sync.Mutex
	seen map[string]int
	last time.Time
	gap  time.Duration // the longest between two
}

func newLog() *log { return &log{seen: map[string]int{}, last: time.Now()} }

func (l *log) handle(_ context.Context, m *messaging.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[m.ID]++
	l.gap = max(l.gap, time.Since(l.last))
	l.last = time.Now()
	return nil
}

func (l *log) distinct() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func (l *log) runs() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.seen {
		n += k
	}
	return n
}

// run runs a consumer until the test ends, and returns when it is ready.
func run(t testing.TB, s messaging.Subscriber, topic string, h messaging.Handler, c messaging.ConsumerConfig) (stop func()) {
	t.Helper()
	consumer, err := messaging.NewConsumer(s, topic, h, c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	select {
	case <-consumer.Ready():
	case err := <-ended:
		require.NoError(t, err, "Run")
	case <-time.After(10 * time.Second):
		t.Fatal("never ready")
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func newPublisher(t testing.TB, s messaging.Sender) *messaging.Publisher {
	t.Helper()
	p, err := messaging.NewPublisher(s, messaging.PublisherConfig{
		Timeout: 60 * time.Second, Retry: retry.Policy{MaxAttempts: 100, Budget: retry.Unlimited},
	})
	require.NoError(t, err)
	return p
}

// Twelve consumers share a group: none of them stands still while there is work. (The pull consumers of nats.go do, for
// two heartbeats.)
func TestTwelveConsumersNeverStall(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	const total = 12 * 500
	for i := 0; i < total; i += 500 {
		m := make([]*messaging.Message, 500)
		for j := range m {
			m[j] = message("t", fmt.Sprint(i+j))
		}
		send(t, b, m...)
	}
	for _, concurrency := range []int{1, 16} {
		l := newLog()
		group := fmt.Sprintf("g%d", concurrency)
		var stops []func()
		for range 12 {
			stops = append(stops, run(t, newBus(t, n.conn(), natsbus.Config{}), "t", l.handle, messaging.ConsumerConfig{Group: group, Concurrency: concurrency}))
		}
		require.Eventually(t, func() bool { return l.distinct() == total }, 60*time.Second, 10*time.Millisecond)
		for _, stop := range stops {
			stop()
		}
		require.Less(t, l.gap, time.Second, "concurrency %d", concurrency)
		require.Equal(t, total, l.runs())
	}
}

// The server is stopped and started on its store while messages flow: nothing is lost, and nobody has to help.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	group, reader := newLog(), newLog()
	var ev events
	run(t, newBus(t, n.conn(), natsbus.Config{}), "t", group.handle, messaging.ConsumerConfig{
		Group: "g", Lease: 3 * time.Second, OnEvent: ev.report,
	})
	run(t, newBus(t, n.conn(), natsbus.Config{}), "t", reader.handle, messaging.ConsumerConfig{Start: messaging.Earliest()})

	p := newPublisher(t, b)
	var acked atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				if err := p.Publish(context.Background(), message("t", fmt.Sprintf("%d-%d", i, j))); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				acked.Add(1)
			}
		})
	}
	for range 2 {
		time.Sleep(300 * time.Millisecond)
		n.stop()
		time.Sleep(200 * time.Millisecond)
		n.start()
	}
	time.Sleep(500 * time.Millisecond)
	close(stop)
	wg.Wait()
	want := int(acked.Load())
	require.Greater(t, want, 100)
	require.Eventually(t, func() bool { return group.distinct() == want }, 20*time.Second, 10*time.Millisecond, "group: %d of %d", group.distinct(), want)
	require.Eventually(t, func() bool { return reader.distinct() == want }, 20*time.Second, 10*time.Millisecond, "reader: %d of %d", reader.distinct(), want)
	require.Equal(t, want, reader.runs(), "a reader sees each message once")
	lost, _ := ev.count(messaging.Disconnected)
	back, _ := ev.count(messaging.Reconnected)
	require.Equal(t, 2, lost)
	require.Equal(t, 2, back)
	_, gap := ev.count(messaging.Gap)
	require.Zero(t, gap)
}

// Somebody deletes the consumers on the server: they are made again.
func TestDeletedConsumer(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	group, reader := newLog(), newLog()
	run(t, b, "t", group.handle, messaging.ConsumerConfig{Group: "g"})
	run(t, b, "t", reader.handle, messaging.ConsumerConfig{Start: messaging.Earliest()})
	p := newPublisher(t, b)
	require.NoError(t, p.Publish(t.Context(), messages("t", 10)...))
	require.Eventually(t, func() bool { return group.distinct() == 10 && reader.distinct() == 10 }, 5*time.Second, 5*time.Millisecond)

	js := newJetStream(t, nc)
	stream, err := js.Stream(t.Context(), "t")
	require.NoError(t, err)
	var names []string
	for name := range stream.ConsumerNames(t.Context()).Name() {
		names = append(names, name)
	}
	require.Len(t, names, 2)
	for _, name := range names {
		require.NoError(t, js.DeleteConsumer(t.Context(), "t", name))
	}
	require.NoError(t, p.Publish(t.Context(), messages("t", 20)[10:]...))
	require.Eventually(t, func() bool { return group.distinct() == 20 && reader.distinct() == 20 }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, 20, reader.runs())
}

// The connection is cut again and again while messages flow.
func TestConnectionCut(t *testing.T) {
	n := startNATS(t, false)
	var w wire
	b := newBus(t, n.conn(nats.SetCustomDialer(&w)), natsbus.Config{})
	provision(t, b, "t")
	group, reader := newLog(), newLog()
	run(t, b, "t", group.handle, messaging.ConsumerConfig{Group: "g", Lease: 2 * time.Second})
	run(t, b, "t", reader.handle, messaging.ConsumerConfig{Start: messaging.Earliest()})
	p := newPublisher(t, newBus(t, n.conn(), natsbus.Config{}))
	const total = 1000
	for i := range total {
		require.NoError(t, p.Publish(t.Context(), message("t", fmt.Sprint(i))))
		if i%200 == 100 {
			w.cut()
		}
	}
	require.Eventually(t, func() bool { return group.distinct() == total }, 15*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return reader.distinct() == total }, 15*time.Second, 10*time.Millisecond)
	require.Equal(t, total, reader.runs())
}

// An acknowledgement is lost on the wire: the message comes once more.
func TestLostAck(t *testing.T) {
	t.Parallel()
	n := startNATS(t, false)
	var w wire
	b := newBus(t, n.conn(nats.SetCustomDialer(&w)), natsbus.Config{})
	provision(t, b, "t")
	l := newLog()
	first := true
	run(t, b, "t", func(ctx context.Context, m *messaging.Message) error {
		if first {
			first = false
			w.hole.Store(true)
			time.AfterFunc(100*time.Millisecond, w.cut)
		}
		return l.handle(ctx, m)
	}, messaging.ConsumerConfig{Group: "g", Lease: time.Second, Concurrency: 1})
	require.NoError(t, newPublisher(t, newBus(t, n.conn(), natsbus.Config{})).Publish(t.Context(), message("t", "1")))
	require.Eventually(t, func() bool { return l.runs() == 2 }, 5*time.Second, 5*time.Millisecond)
	time.Sleep(1500 * time.Millisecond)
	require.Equal(t, 2, l.runs())
}

// A message is lost between server and client: a reader notices with the next one, and reads both again.
func TestReaderMissesNothing(t *testing.T) {
	n := startNATS(t, false)
	var w wire
	b := newBus(t, n.conn(nats.SetCustomDialer(&w)), natsbus.Config{})
	provision(t, b, "t")
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		other := newBus(t, n.conn(), natsbus.Config{})
		for i, m := range messages("t", 5) {
			time.Sleep(50 * time.Millisecond)
			w.lose.Store(i == 2)
			if err := other.Send(context.Background(), []*messaging.Message{m}); err != nil {
				t.Errorf("send: %v", err)
			}
		}
	})
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	for len(got) < 5 {
		into := make([]messaging.Delivery, 16)
		k, err := sub.Receive(ctx, into)
		require.NoError(t, err)
		got = append(got, ids(into[:k])...)
		done(t, sub, into[:k]...)
	}
	require.Equal(t, []string{"t-0", "t-1", "t-2", "t-3", "t-4"}, got)
	require.Less(t, time.Since(begin), 2*time.Second, "not after a silence")
}

// What is on its way when a member stops arrives, and is handed back: over a slow connection that is a lot.
func TestHandBackOfWhatIsOnItsWay(t *testing.T) {
	n := startNATS(t, false)
	var w wire
	slow, fast := newBus(t, n.conn(nats.SetCustomDialer(&w)), natsbus.Config{}), newBus(t, n.conn(), natsbus.Config{})
	provision(t, fast, "t")
	first, second := open(t, slow, spec("t", "g")), open(t, fast, spec("t", "g"))
	defer closeSub(t, second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		k, _ := first.Receive(ctx, make([]messaging.Delivery, 16))
		ended <- k
	}()
	time.Sleep(50 * time.Millisecond) // it has asked
	w.delay.Store(int64(100 * time.Millisecond))
	time.Sleep(10 * time.Millisecond)
	send(t, fast, messages("t", 16)...)
	cancel()
	require.Zero(t, <-ended)
	require.Len(t, receive(t, second, 16, 3*time.Second), 16)
	closeSub(t, first)
}

// Ending a consumer leaves the connection, and the other consumers on it, alone.
func TestBorrowedConnection(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	one, two := newLog(), newLog()
	stop := run(t, b, "t", one.handle, messaging.ConsumerConfig{Group: "one"})
	run(t, b, "t", two.handle, messaging.ConsumerConfig{Group: "two"})
	stop()
	require.NoError(t, newPublisher(t, b).Publish(t.Context(), messages("t", 5)...))
	require.Eventually(t, func() bool { return two.distinct() == 5 }, 5*time.Second, 5*time.Millisecond)
	require.Zero(t, one.distinct())
}

// The user closes the connection: that is the end, and Run says so.
func TestClosedConnection(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	c, err := messaging.NewConsumer(b, "t", newLog().handle, messaging.ConsumerConfig{Group: "g"})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	<-c.Ready()
	nc.Close()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, messaging.ErrClosed)
	case <-time.After(5 * time.Second):
		t.Fatal("Run goes on without a connection")
	}
	require.ErrorIs(t, b.Send(t.Context(), messages("t", 1)), messaging.ErrClosed)
}
