// Package membus is the in-memory transport.
package membus

import (
	"context"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// Config configures a Bus. The zero Config is right for one process and for tests.
type Config struct {
	MaxMessages int           // kept per topic; Publish waits for room. Zero: 65536
	MaxBytes    int           // of bodies kept per topic. Zero: 256 MiB
	MaxMessage  int           // the largest message. Zero: 1 MiB
	MaxAge      time.Duration // how long handled messages are kept for readers. Zero: 1 h
	Dedupe      time.Duration // window in which a second publish of one ID is dropped. Zero: 2 min
	Strict      bool          // only provisioned topics exist. Zero: a topic is made at first use
}

// A Bus is a messaging.Sender and a messaging.Subscriber. Any number of goroutines may use it at once. It starts no
// goroutine.
type Bus struct{ c Config }

// New returns an empty Bus.
func New(c Config) (*Bus, error) { panic("unwritten") }

// Send implements messaging.Sender.
func (b *Bus) Send(ctx context.Context, m []*messaging.Message) error { panic("unwritten") }

// Open implements messaging.Subscriber.
func (b *Bus) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	panic("unwritten")
}

// Features implements messaging.Sender and messaging.Subscriber.
func (b *Bus) Features() messaging.Features { panic("unwritten") }

// Provision implements messaging.Provisioner.
func (b *Bus) Provision(ctx context.Context, t ...messaging.TopicSpec) error { panic("unwritten") }
