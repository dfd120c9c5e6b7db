package messaging

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// NoTimeout switches a timeout off where zero means a default.
const NoTimeout = call.NoTimeout

// PublisherConfig configures a Publisher. The zero PublisherConfig is right in production.
type PublisherConfig struct {
	Timeout        time.Duration  // bounds a Publish with all its attempts and waits. Zero: 10 s
	AttemptTimeout time.Duration  // bounds one attempt. Zero: 3 s
	Retry          retry.Policy   // Zero fields: 3 attempts from 50 ms to 2 s, a budget of this publisher's own
	Breakers       *breaker.Group // guards each attempt by topic. Zero: a group of its own
	// Window bounds the messages of Go that are not confirmed yet. Zero: 1024.
	Window int
	// AtMostOnce accepts a Sender that confirms nothing. Zero: such a Sender is an error.
	AtMostOnce bool
	// Source is the CloudEvents source of messages that name none. Zero: "/" and the topic.
	Source string
	// OnAttempt is called after each attempt. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e PublishAttempt)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// PublishAttempt tells of one attempt that ended.
type PublishAttempt struct {
	Number   int
	Topic    string
	Messages int
	Err      error
	Duration time.Duration
}

// A Publisher publishes with the same policy as every call of this module. Any number of goroutines may use it at once.
type Publisher struct{ sender Sender }

// NewPublisher returns a Publisher over s. The error joins every fault of the PublisherConfig, and says what s cannot
// promise. It does no I/O.
func NewPublisher(s Sender, c PublisherConfig) (*Publisher, error) { panic("unwritten") }

// Publish returns nil when the transport has all messages; else a *PublishError that names each that is not stored, or
// of which that is not known. A retry sends only what is not stored, under the same ID. The messages of one call that
// share a Key are stored in their order: when one fails, the later ones of its key are not sent.
func (p *Publisher) Publish(ctx context.Context, m ...*Message) error { panic("unwritten") }

// Go publishes m without waiting for the confirmation: it waits only for room in the window, then returns nil and calls
// done once from another goroutine. Messages of one Key are stored in the order of their Go calls. Flush waits for all.
func (p *Publisher) Go(ctx context.Context, m *Message, done func(error)) error { panic("unwritten") }

// Flush waits until every message of Go so far has been answered.
func (p *Publisher) Flush(ctx context.Context) error { panic("unwritten") }

// Features returns those of the Sender.
func (p *Publisher) Features() Features { panic("unwritten") }
