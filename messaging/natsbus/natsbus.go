// Package natsbus is messaging over NATS: JetStream with New, core with NewCore.
package natsbus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
)

// Config configures a Bus. The zero Config is right in production.
type Config struct {
	Prefix string // of subjects, streams and consumers, to keep several users of one account apart. Zero: none
	Domain string // JetStream domain. Zero: the connection's own
	// MaxAge, MaxBytes and Replicas are what Provision gives a topic that names none. Zero: 7 days, no limit, 1.
	MaxAge   time.Duration
	MaxBytes int64
	Replicas int
	// ConfirmAcks waits for the server's answer to each acknowledgement. Zero: an acknowledgement that is lost costs a
	// redelivery.
	ConfirmAcks bool
}

// A Bus is a messaging.Sender, Subscriber and Provisioner over JetStream. Any number of goroutines may use it at once.
// It never closes the connection.
type Bus struct{ nc *nats.Conn }

// New returns a Bus over nc. It does no I/O.
func New(nc *nats.Conn, c Config) (*Bus, error) { panic("unwritten") }

// Provision declares topics, each with its dead-letter topic. A topic that exists with other settings is an error that names them.
func (b *Bus) Provision(ctx context.Context, t ...messaging.TopicSpec) error { panic("unwritten") }

// Send implements messaging.Sender.
func (b *Bus) Send(ctx context.Context, m []*messaging.Message) error { panic("unwritten") }

// Open implements messaging.Subscriber.
func (b *Bus) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	panic("unwritten")
}

// Features implements messaging.Sender and messaging.Subscriber.
func (b *Bus) Features() messaging.Features { panic("unwritten") }
