package messaging

import (
	"context"
	"time"
)

// What an adapter writes: a Sender, a Subscriber or both on one type. All policy (timeouts, retries, breakers,
// concurrency, order, leases, dead letters, drain) lives in Publisher and Consumer, once.

// A Sender hands messages to a transport. Send may be called by many goroutines at once.
type Sender interface {
	// Send returns nil when the transport has all of m, at the strongest confirmation that Features promises; else a
	// *PublishError that names each message that is not stored, or of which that is not known. It must not keep m,
	// must not change a message, and must return promptly when ctx ends. Messages arrive validated, with ID, Source
	// and Time set.
	Send(ctx context.Context, m []*Message) error
	Features() Features
}

// A Subscriber opens subscriptions. Open may be called by many goroutines at once.
type Subscriber interface {
	// Open returns when the transport holds the place of the group and the start position is fixed: nothing published
	// from then on is missed. An error that another try cannot mend is marked with retry.Permanent.
	Open(ctx context.Context, s Spec) (Subscription, error)
	Features() Features
}

// A Subscription delivers to one Consumer. One goroutine calls Receive at a time; Settle may run beside it and beside
// itself.
type Subscription interface {
	// Receive waits for at least one delivery and returns at most len(into) of them: the free slots of the consumer.
	// The adapter must not hold more deliveries whose lease is running than it was asked for. An error means that the
	// subscription is over and must be closed; the consumer opens another unless the error is marked retry.Permanent.
	Receive(ctx context.Context, into []Delivery) (int, error)
	// Settle carries out each Settlement and writes its outcome into it. An error stands for all of them. It must be
	// called with a context of its own, not with that of a handler.
	Settle(ctx context.Context, s []Settlement) error
	// Close withdraws outstanding requests first, then hands back what was fetched and not delivered, and waits for
	// neither handlers nor leases. What was delivered may still be settled until Close is called, not after.
	Close(ctx context.Context) error
}

// A Requester is a Sender that can wait for an answer. See Request.
type Requester interface {
	Request(ctx context.Context, m *Message) (*Message, error)
}

// A Provisioner declares topics: at deploy time and in tests, never on the way of a message.
type Provisioner interface {
	Provision(ctx context.Context, t ...TopicSpec) error
}

// A TopicSpec is one topic to be declared.
type TopicSpec struct {
	Name     string
	MaxAge   time.Duration // how long messages are kept. Zero: the transport's own default
	MaxBytes int64         // how many bytes are kept. Zero: the transport's own default
	Replicas int           // Zero: the transport's own default
	// Partitions is over how many lanes keys are spread where the transport has partitions. Zero: its own default.
	Partitions int
}

// A Lagger knows how far a group is behind. Subscriptions implement it where the transport can tell.
type Lagger interface {
	Lag(ctx context.Context) (Lag, error)
}

// Lag is how far a group is behind.
type Lag struct {
	Messages int64 // stored, not yet delivered
	Unacked  int64 // delivered, not settled
}

// A Spec is what a Consumer asks of a Subscriber.
type Spec struct {
	Topic   string
	Group   string // empty: a reader of its own, from Start
	Ordered bool
	Start   Start
	Lease   time.Duration
	// Slots is how many deliveries the consumer holds unsettled at most; Parked how many more may wait for a delayed
	// retry in the transport's hands.
	Slots, Parked int
	MaxBytes      int // of message bodies that may be fetched and unsettled at once
	// Report is never nil. The adapter tells through it what no return value carries: a broken connection that will be
	// mended by itself, messages the transport dropped before this group had read them.
	Report func(ctx context.Context, e Event)
}

// A Delivery is one message in the consumer's hands.
type Delivery struct {
	Message *Message
	// Malformed says why the message could not be read. Message then holds what could: body and headers as they came.
	Malformed error
	// Until is when the transport takes it back; zero: no lease.
	Until time.Time
	// Recall, when closed, asks to give back what has not started and finish what has: a rebalance, a draining server.
	// Lost, when closed, says that settling is pointless: the handler is cancelled with ErrLeaseLost. Both may be nil
	// and may be shared by many deliveries.
	Recall, Lost <-chan struct{}
	// Ref is the adapter's own handle, given back in Settlement.
	Ref uint64
}

// A Settlement is the verdict on one delivery.
type Settlement struct {
	Ref    uint64
	Action Action
	Delay  time.Duration // of Retry

	// Err is the adapter's answer: nil, ErrLeaseLost where the verdict came too late, or what went wrong.
	Err error
	// Until is the adapter's answer to Extend: the new end of the lease.
	Until time.Time
}

// Action is what a Settlement does.
type Action int

// The actions.
const (
	// Done: handled, or safely dead-lettered; never deliver it to this group again.
	Done Action = iota
	// Retry: deliver it again, to any member of the group, not before Delay.
	Retry
	// Release: deliver it again at once, to another member if there is one; no failure of the message.
	Release
	// Extend: the handler still works; start the lease anew.
	Extend
)

// An Event is what an adapter reports beside its deliveries.
type Event struct {
	Kind EventKind
	Err  error // of Disconnected
	Gap  int64 // of Gap: how many messages are gone
}

// EventKind is the kind of an Event.
type EventKind int

// The kinds.
const (
	Disconnected EventKind = iota
	Reconnected
	Gap // the transport dropped messages that this group had not read
)

// Features is what a transport really promises. It is a fact about the adapter, not a wish: NewPublisher and
// NewConsumer refuse what it does not cover, and messagingtest asserts both sides.
type Features struct {
	Confirm Confirm
	Groups  bool // independent groups, members of one group compete
	Durable bool // a group keeps its place while nobody is connected
	Order   Order
	Replay  Replay
	// Attempts says who counts deliveries.
	Attempts Attempts
	// Redelivery is the longest span over which the transport itself may deliver a message again. Zero: never.
	Redelivery time.Duration
	// Delay is the longest delay of Retry that the transport itself holds; longer ones, and all where it is zero, wait
	// in this process.
	Delay time.Duration
	// Schedule is the longest NotBefore. Zero: none.
	Schedule time.Duration
	// Dedupe is the window in which a second publish of one ID is dropped. Zero: none.
	Dedupe time.Duration
	Lease  bool // deliveries come back by themselves after Spec.Lease
	Extend bool // and the lease can be extended
	// Request: it is a Requester.
	Request bool
	// MaxBytes is the largest message, headers included. Zero: not known before sending.
	MaxBytes int
}

// Confirm is what a nil error of Publish means.
type Confirm int

// The confirmations.
const (
	ConfirmNone   Confirm = iota // handed to a connection: at most once
	ConfirmMemory                // stored in this process
	ConfirmBroker                // stored by the broker
	ConfirmTx                    // part of the caller's transaction, stored when that commits
	ConfirmPeer                  // the receiver has handled it
)

// Order is what an Ordered consumer can rely on.
type Order int

// The orders.
const (
	OrderNone      Order = iota
	OrderReader          // readers without a group see messages in order
	OrderOneMember       // also a group, while it has one member
	OrderGroup           // also a group with many members: one lane per key across them
)

// Replay is from where a new reader can start.
type Replay int

// The replays.
const (
	ReplayNone Replay = iota
	ReplayEarliest
	ReplayTime
	ReplayCursor // any of them
)

// Attempts is who counts deliveries.
type Attempts int

// The counts.
const (
	AttemptsNone    Attempts = iota // nobody: every delivery is a first one
	AttemptsProcess                 // this process; a crash forgets
	AttemptsBroker                  // the transport; a message that kills the process is bounded
)
