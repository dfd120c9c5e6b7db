package natsbus

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
)

// CoreConfig configures a Core.
type CoreConfig struct {
	Prefix  string // of subjects. Zero: none
	Pending int    // messages the connection holds for a slow consumer before it drops. Zero: 65536
}

// A Core is a messaging.Sender, Subscriber and Requester over NATS core: at most once, no acknowledgement, no replay.
type Core struct{ nc *nats.Conn }

// NewCore returns a Core over nc. It does no I/O.
func NewCore(nc *nats.Conn, c CoreConfig) (*Core, error) { panic("unwritten") }

// Send implements messaging.Sender.
func (c *Core) Send(ctx context.Context, m []*messaging.Message) error { panic("unwritten") }

// Open implements messaging.Subscriber.
func (c *Core) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	panic("unwritten")
}

// Request implements messaging.Requester.
func (c *Core) Request(ctx context.Context, m *messaging.Message) (*messaging.Message, error) {
	panic("unwritten")
}

// Features implements messaging.Sender and messaging.Subscriber.
func (c *Core) Features() messaging.Features { panic("unwritten") }
