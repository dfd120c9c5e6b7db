package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A Harness is a transport under test. Run asks for a new one for each case.
type Harness struct {
	Sender     messaging.Sender
	Subscriber messaging.Subscriber
	// Provision makes a topic and its dead-letter topic, called the same with ".dead" behind it. Zero: topics need no
	// making.
	Provision func(t *testing.T, topic string)
	// Unknown is the name of a topic that does not exist and is not made by using it. Zero: there is none such.
	Unknown string
	// Garbage publishes, past the Sender, something that is no message. Zero: the transport knows no such thing.
	Garbage func(t *testing.T, topic string)
	// Expire makes the transport take every delivery back, as if its lease had passed. Zero: it cannot be made to.
	Expire func(t *testing.T)
	// Disconnect breaks the connection; the transport mends it, or the consumer does. Zero: there is nothing to break.
	Disconnect func(t *testing.T)
}

// Live runs a case in real time. It is what Run takes in place of synctest.Test.
func Live(t *testing.T, f func(*testing.T)) {
	t.Helper()
	f(t)
}

// A rule is one case: what it is called, what it says, and how that is proved.
type rule struct {
	name, says string
	prove      func(k *kit)
}

// Run runs every case as a subtest. Within is called with the body of each: synctest.Test, or Live. The Harness is made
// inside of it, and must be gone when the case's cleanups have run.
func Run(t *testing.T, within func(*testing.T, func(*testing.T)), open func(*testing.T) Harness) {
	t.Helper()
	for _, r := range slices.Concat(delivering(), failing(), leasing(), settling(), draining(), ordering(), publishing(), replaying()) {
		t.Run(r.name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("the rule: %s", r.says)
				}
			}()
			within(t, func(t *testing.T) {
				h := open(t)
				r.prove(&kit{T: t, h: h, f: h.Subscriber.Features()})
			})
		})
	}
}

// A kit is the dialect that the cases are written in.
type kit struct {
	*testing.T
	h      Harness
	f      messaging.Features
	topics int
}

// lease is short for those who run it live, and long against what a busy machine needs.
const lease = 4 * time.Second

func (k *kit) topic() string {
	k.Helper()
	k.topics++
	name := fmt.Sprintf("kit-%d", k.topics)
	if k.h.Provision != nil {
		k.h.Provision(k.T, name)
	}
	return name
}

func (k *kit) publisher() *messaging.Publisher {
	k.Helper()
	p, err := messaging.NewPublisher(k.h.Sender, messaging.PublisherConfig{AtMostOnce: true})
	if err != nil {
		k.Fatalf("NewPublisher: %v", err)
	}
	return p
}

func (k *kit) publish(m ...*messaging.Message) {
	k.Helper()
	if err := k.publisher().Publish(k.Context(), m...); err != nil {
		k.Fatalf("Publish: %v", err)
	}
}

// text returns messages with these bodies.
func text(topic string, bodies ...string) []*messaging.Message {
	m := make([]*messaging.Message, len(bodies))
	for i, b := range bodies {
		m[i] = &messaging.Message{Topic: topic, Body: []byte(b)}
	}
	return m
}

func (k *kit) config(group string) messaging.ConsumerConfig {
	return messaging.ConsumerConfig{Group: group, Lease: lease}
}

// A seen is one call of a handler.
type seen struct {
	body    string
	attempt int
	at      time.Time
	m       *messaging.Message
}

// A member is a consumer that runs.
type member struct {
	k      *kit
	c      *messaging.Consumer
	cancel context.CancelFunc
	ended  chan struct{}
	err    error

	mu   sync.Mutex
	seen []seen
	dead []messaging.DeadLetter
}

// run starts a consumer and returns when it is ready. It ends with the case, or by stop.
func (k *kit) run(topic string, c messaging.ConsumerConfig, h messaging.Handler) *member {
	k.Helper()
	r := &member{k: k, ended: make(chan struct{})}
	if c.OnDead == nil {
		c.OnDead = func(_ context.Context, e messaging.DeadLetter) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dead = append(r.dead, e)
		}
	}
	consumer, err := messaging.NewConsumer(k.h.Subscriber, topic, func(ctx context.Context, m *messaging.Message) error {
		r.mu.Lock()
		r.seen = append(r.seen, seen{string(m.Body), m.Attempt, time.Now(), m})
		r.mu.Unlock()
		if h == nil {
			return nil
		}
		return h(ctx, m)
	}, c)
	if err != nil {
		k.Fatalf("NewConsumer: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(k.Context()))
	r.c, r.cancel = consumer, cancel
	go func() {
		defer close(r.ended)
		r.err = consumer.Run(ctx)
	}()
	k.Cleanup(func() { _ = r.stop() })
	select {
	case <-consumer.Ready():
	case <-r.ended:
		k.Fatalf("Run ended before it was ready: %v", r.err)
	case <-time.After(time.Minute):
		k.Fatal("not ready within a minute")
	}
	return r
}

// stop ends the consumer and returns what Run said.
func (r *member) stop() error {
	r.cancel()
	<-r.ended
	return r.err
}

func (r *member) calls() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

func (r *member) deadLetters() []messaging.DeadLetter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dead)
}

// deadLetter returns the only one.
func (r *member) deadLetter() messaging.DeadLetter {
	r.k.Helper()
	all := r.deadLetters()
	if len(all) != 1 {
		r.k.Fatalf("%d dead letters, want one", len(all))
	}
	return all[0]
}

func (r *member) bodies() []string {
	var b []string
	for _, s := range r.calls() {
		b = append(b, s.body)
	}
	return b
}

// await waits until the handler has been called n times.
func (r *member) await(n int, within time.Duration) []seen {
	r.k.Helper()
	r.k.eventually(within, func() bool { return len(r.calls()) >= n },
		func() string {
			return fmt.Sprintf("%d calls of the handler; got %d: %q", n, len(r.calls()), r.bodies())
		})
	return r.calls()
}

// settled waits until nothing is with a handler, so that verdicts have left.
func (r *member) settled() {
	r.k.Helper()
	r.k.eventually(10*time.Second, func() bool { return r.c.Stats().InFlight == 0 }, func() string { return "no handler at work" })
	time.Sleep(100 * time.Millisecond)
}

func (k *kit) eventually(within time.Duration, ok func() bool, what func() string) {
	k.Helper()
	end := time.Now().Add(within)
	for !ok() {
		if time.Now().After(end) {
			k.Fatalf("after %v, want %s", within, what())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// want compares got with what it should be.
func want[T any](k *kit, what string, got, want T) {
	k.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		k.Errorf("%s\n got  %s\n want %s", what, g, w)
	}
}

// refused asserts that asking for what is not promised is an error that says so.
func (k *kit) refused(what string, err error) {
	k.Helper()
	if !errors.Is(err, messaging.ErrUnsupported) {
		k.Errorf("%s is not promised; want ErrUnsupported, got %v", what, err)
	}
}

// newConsumer only builds one.
func (k *kit) newConsumer(topic string, c messaging.ConsumerConfig) error {
	_, err := messaging.NewConsumer(k.h.Subscriber, topic, func(context.Context, *messaging.Message) error { return nil }, c)
	return err
}

// needGroups asserts the refusal where there are no groups, and reports whether there are.
func (k *kit) needGroups() bool {
	k.Helper()
	if k.f.Groups {
		return true
	}
	k.refused("Group", k.newConsumer(k.topic(), k.config("g")))
	return false
}

// needs skips a case about what the transport does not promise, or the harness cannot bring about.
func (k *kit) needs(it bool, what string) {
	k.Helper()
	if !it {
		k.Skipf("not here: %s", what)
	}
}

// storesDead reports whether a consumer of this transport has dead letters without being given a Publisher.
func (k *kit) storesDead() bool {
	return k.f.Groups && k.f.Confirm != messaging.ConfirmNone && k.f.Confirm != messaging.ConfirmTx
}

// readDead reads dead letters of a topic; call it before they are written.
func (k *kit) readDead(topic string) *member {
	k.Helper()
	return k.run(topic+".dead", messaging.ConsumerConfig{}, nil)
}
