package membus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// Config configures a Bus. The zero Config is right for one process and for tests.
type Config struct {
	MaxMessages int           // kept per topic; Publish waits for room. Zero: 65536
	MaxBytes    int           // of bodies kept per topic. Zero: 256 MiB
	MaxMessage  int           // the largest message, headers included. Zero: 1 MiB
	MaxAge      time.Duration // how long handled messages are kept for readers and new groups. Zero: 1 h
	Dedupe      time.Duration // window in which a second publish of one ID is dropped. Zero: 2 min
	Strict      bool          // only provisioned topics exist. Zero: a topic is made at first use
}

// A Bus is a messaging.Sender, Subscriber and Provisioner. Any number of goroutines may use it at once. It starts no
// goroutine, and needs no closing.
type Bus struct {
	c      Config // filled
	faults faults

	mu     sync.Mutex // guards topics
	topics map[string]*topic
}

// New returns an empty Bus. The error joins every fault of the Config.
func New(c Config) (*Bus, error) {
	var errs []error
	for _, v := range []struct {
		name     string
		negative bool
	}{
		{"MaxMessages", c.MaxMessages < 0},
		{"MaxBytes", c.MaxBytes < 0},
		{"MaxMessage", c.MaxMessage < 0},
		{"MaxAge", c.MaxAge < 0},
		{"Dedupe", c.Dedupe < 0},
	} {
		if v.negative {
			errs = append(errs, fmt.Errorf("membus: %s is negative", v.name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.MaxMessages = cmp.Or(c.MaxMessages, 65536)
	c.MaxBytes = cmp.Or(c.MaxBytes, 256<<20)
	c.MaxMessage = cmp.Or(c.MaxMessage, 1<<20)
	c.MaxAge = cmp.Or(c.MaxAge, time.Hour)
	c.Dedupe = cmp.Or(c.Dedupe, 2*time.Minute)
	return &Bus{c: c, topics: make(map[string]*topic)}, nil
}

// Features implements messaging.Sender and messaging.Subscriber.
func (b *Bus) Features() messaging.Features {
	return messaging.Features{
		Confirm:    messaging.ConfirmMemory,
		Groups:     true,
		Durable:    true,
		Order:      messaging.OrderGroup,
		Replay:     messaging.ReplayCursor,
		Attempts:   messaging.AttemptsBroker,
		Redelivery: messaging.NoTimeout, // until it is settled
		Delay:      messaging.NoTimeout,
		Schedule:   messaging.NoTimeout,
		Dedupe:     b.c.Dedupe,
		Lease:      true,
		Extend:     true,
		MaxBytes:   b.c.MaxMessage,
	}
}

// Provision implements messaging.Provisioner: it declares topics, each with its dead-letter topic. A topic that exists
// with other settings is an error that names them, and stays as it is.
func (b *Bus) Provision(_ context.Context, specs ...messaging.TopicSpec) error {
	var errs []error
	for _, s := range specs {
		if err := messaging.CheckTopic(s.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		b.mu.Lock()
		t := b.topics[s.Name]
		if t == nil {
			b.newTopic(s)
		} else if err := t.differs(b.settings(s)); err != nil {
			errs = append(errs, err)
		}
		dead := s.Name + ".dead"
		if b.topics[dead] == nil && messaging.CheckTopic(dead) == nil { // it may be too long: then there is none by default
			b.newTopic(messaging.TopicSpec{Name: dead})
		}
		b.mu.Unlock()
	}
	return errors.Join(errs...)
}

// settings are those of a topic: the Bus's own where the spec names none.
func (b *Bus) settings(s messaging.TopicSpec) settings {
	v := settings{messages: b.c.MaxMessages, bytes: b.c.MaxBytes, age: b.c.MaxAge, dedupe: b.c.Dedupe}
	if s.MaxAge > 0 {
		v.age = s.MaxAge
	}
	if s.MaxBytes > 0 {
		v.bytes = int(s.MaxBytes)
	}
	return v
}

func (b *Bus) newTopic(s messaging.TopicSpec) *topic {
	v := b.settings(s)
	t := &topic{
		name: s.Name, settings: v, faults: &b.faults,
		log: ring[entry]{base: 1, next: 1}, spare: 1,
		window: newWindow(v.dedupe, v.messages), named: make(map[string]*group),
	}
	b.topics[s.Name] = t
	return t
}

// topic returns a topic, made if the Bus makes topics.
func (b *Bus) topic(name string) (*topic, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t != nil {
		return t, nil
	}
	if b.c.Strict {
		return nil, fmt.Errorf("membus: %w %q", messaging.ErrUnknownTopic, name)
	}
	if err := messaging.CheckTopic(name); err != nil {
		return nil, err
	}
	return b.newTopic(messaging.TopicSpec{Name: name}), nil
}

// Send implements messaging.Sender. It waits for room in the topics under ctx.
func (b *Bus) Send(ctx context.Context, m []*messaging.Message) error {
	var failed []messaging.Failure
	for start := 0; start < len(m); {
		end := start + 1
		for end < len(m) && m[end].Topic == m[start].Topic {
			end++
		}
		err := b.faults.send()
		if err == nil {
			var t *topic
			if t, err = b.topic(m[start].Topic); err == nil {
				var stored int
				stored, err = t.append(ctx, m[start:end])
				start += stored
			}
		}
		for ; err != nil && start < end; start++ {
			failed = append(failed, messaging.Failure{Index: start, Err: err})
		}
		start = end
	}
	if err := b.faults.confirm(); err != nil {
		failed = failed[:0]
		for i := range m {
			failed = append(failed, messaging.Failure{Index: i, Unknown: true, Err: err})
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &messaging.PublishError{Failed: failed}
}

// Open implements messaging.Subscriber.
func (b *Bus) Open(_ context.Context, s messaging.Spec) (messaging.Subscription, error) {
	t, err := b.topic(s.Topic)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	sub, err := t.open(s)
	if err != nil {
		return nil, err
	}
	b.faults.add(sub)
	return sub, nil
}
