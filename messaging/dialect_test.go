package messaging_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

// A scripted is a Sender that answers call after call as it was told, and then stores.
type scripted struct {
	features messaging.Features
	answer   func(call int, m []*messaging.Message) error

	mu    sync.Mutex
	calls [][]string // bodies of each call
	ids   [][]string
}

func (s *scripted) Features() messaging.Features {
	f := s.features
	if f.Confirm == messaging.ConfirmNone {
		f.Confirm = messaging.ConfirmBroker
	}
	return f
}

func (s *scripted) Send(_ context.Context, m []*messaging.Message) error {
	s.mu.Lock()
	var bodies, ids []string
	for _, m := range m {
		bodies, ids = append(bodies, string(m.Body)), append(ids, m.ID)
	}
	s.calls, s.ids = append(s.calls, bodies), append(s.ids, ids)
	call := len(s.calls)
	s.mu.Unlock()
	if s.answer == nil {
		return nil
	}
	return s.answer(call, m)
}

func publisher(t *testing.T, s messaging.Sender, c messaging.PublisherConfig) *messaging.Publisher {
	t.Helper()
	p, err := messaging.NewPublisher(s, c)
	require.NoError(t, err)
	return p
}

func newBus(t *testing.T, c membus.Config) *membus.Bus {
	t.Helper()
	b, err := membus.New(c)
	require.NoError(t, err)
	return b
}

func message(topic, key, body string) *messaging.Message {
	return &messaging.Message{Topic: topic, Key: key, Body: []byte(body)}
}

func bodies(topic string, b ...string) []*messaging.Message {
	m := make([]*messaging.Message, len(b))
	for i := range b {
		m[i] = message(topic, "", b[i])
	}
	return m
}

func publish(t *testing.T, s messaging.Sender, m ...*messaging.Message) {
	t.Helper()
	require.NoError(t, publisher(t, s, messaging.PublisherConfig{AtMostOnce: true}).Publish(t.Context(), m...))
}

// A running is a consumer at work, and what its handler saw.
type running struct {
	*messaging.Consumer
	cancel context.CancelFunc
	err    chan error

	mu   sync.Mutex
	seen []string
	at   []time.Time
	dead []messaging.DeadLetter
}

// run starts a consumer in the bubble of t; it ends with t.
func run(t *testing.T, s messaging.Subscriber, c messaging.ConsumerConfig, h messaging.Handler) *running {
	t.Helper()
	r := &running{err: make(chan error, 1)}
	if c.OnDead == nil {
		c.OnDead = func(_ context.Context, e messaging.DeadLetter) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dead = append(r.dead, e)
		}
	}
	var err error
	r.Consumer, err = messaging.NewConsumer(s, "orders", func(ctx context.Context, m *messaging.Message) error {
		r.mu.Lock()
		r.seen, r.at = append(r.seen, string(m.Body)), append(r.at, time.Now())
		r.mu.Unlock()
		return h(ctx, m)
	}, c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.cancel = cancel
	go func() { r.err <- r.Run(ctx) }()
	t.Cleanup(cancel)
	<-r.Ready()
	return r
}

func (r *running) stop() error {
	r.cancel()
	err := <-r.err
	r.err <- err
	return err
}

func (r *running) saw() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.seen...)
}

func (r *running) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time(nil), r.at...)
}

func (r *running) dead1(t *testing.T) messaging.DeadLetter {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.dead, 1)
	return r.dead[0]
}

func ok(context.Context, *messaging.Message) error { return nil }

// every waits d each time.
func every(d time.Duration, attempts int) retry.Policy {
	return retry.Policy{MaxAttempts: attempts, Backoff: func() retry.Intervals { return constant(d) }}
}

type constant time.Duration

func (c constant) NextBackOff() time.Duration { return time.Duration(c) }
func (constant) Reset()                       {}

// A lesser is a Bus that promises less.
type lesser struct {
	*membus.Bus
	less func(*messaging.Features)
}

func (l lesser) Features() messaging.Features {
	f := l.Bus.Features()
	l.less(&f)
	return f
}

// readDead returns what the dead-letter topic of orders holds.
func readDead(t *testing.T, b *membus.Bus) []*messaging.Message {
	t.Helper()
	sub, err := b.Open(t.Context(), messaging.Spec{Topic: "orders.dead", Start: messaging.Earliest(), Slots: 100})
	require.NoError(t, err)
	var m []*messaging.Message
	into := make([]messaging.Delivery, 100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for {
		n, err := sub.Receive(ctx, into)
		if err != nil {
			require.NoError(t, sub.Close(context.WithoutCancel(ctx)))
			return m
		}
		for i := range n {
			m = append(m, into[i].Message)
		}
	}
}

// goexit ends the goroutine that calls it.
func goexit() { runtime.Goexit() }

// pass lets time go by in a bubble, and what is due by then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
