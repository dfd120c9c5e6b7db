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
	// *PublishError that names each message that is not stored, or of which that is not known; any other error stands
	// for all of m, unknown. A Failure marked retry.Permanent is not sent again, one with a hint not before it.
	//
	// Messages of one Topic and Key are stored in their order: when one fails, each later one of its key in m is named
	// too and is not stored. Send must not keep m nor change a message, and must return promptly when ctx ends.
	// Messages arrive validated, with ID, Source and Time set.
	Send(ctx context.Context, m []*Message) error
	Features() Features
}

// A Subscriber opens subscriptions. Open may be called by many goroutines at once.
type Subscriber interface {
	// Open returns when the transport holds the place of the group and the start position is fixed: nothing published
	// from then on is missed. An error that another try cannot mend is marked with retry.Permanent; where this topic or
	// group falls short of what s asks and Features allows, it is ErrUnsupported and names the setting.
	Open(ctx context.Context, s Spec) (Subscription, error)
	Features() Features
}

// A Subscription delivers to one Consumer. One goroutine calls Receive at a time; Settle may run beside it and beside
// itself.
type Subscription interface {
	// Receive waits for at least one delivery and returns at most len(into) of them: the free slots of the consumer.
	// The adapter must not hold more deliveries whose lease is running than it was asked for. n > 0 comes with a nil
	// error. When ctx ends, Receive withdraws its request and hands back what it fetched and did not deliver before it
	// returns. Any other error means that the subscription is over; the consumer opens another unless the error is
	// marked retry.Permanent, and closes this one when its last delivery is settled.
	Receive(ctx context.Context, into []Delivery) (int, error)
	// Settle carries out each Settlement and writes its outcome into it. An error stands for all of them. It must be
	// called with a context of its own, not with that of a handler.
	Settle(ctx context.Context, s []Settlement) error
	// Close comes after the last Receive and the last Settle. It waits for neither handlers nor leases.
	Close(ctx context.Context) error
}

// A Requester is a Sender that can wait for an answer, which a responder of any kind gives: a Consumer gives none.
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
	Lease   time.Duration // wanted; Delivery.Until is the fact
	// Slots + Parked is the most that is unsettled at once: Slots at work or buffered, Parked waiting for a delayed
	// retry, in the transport's hands or in the consumer's.
	Slots, Parked int
	MaxBytes      int // of message bodies that may be fetched and unsettled at once
	// Report is never nil. The adapter tells through it what no return value carries: a broken connection that will be
	// mended by itself, messages the transport dropped before this group had read them.
	Report func(ctx context.Context, e Event)
}

// A Delivery is one message in the consumer's hands.
type Delivery struct {
	// Message is a struct of its own and always passes the checks of Publish, so that it can be dead-lettered: ID set
	// (from its position where the producer gave none), names of headers in lower case, headers that do not fit left
	// out, a Key that is no printable text in base64. Its Topic may be another than Spec.Topic (a relay, a redrive).
	Message *Message
	// Malformed says why the message could not be read. Message then holds what could, and the body as it came.
	Malformed error
	// Until is when the transport takes it back; zero: no lease.
	Until time.Time
	// Recall, when closed, asks to give back what has not started and finish what has: a rebalance, a draining server.
	// Lost, when closed, says that settling is pointless: the handler is cancelled with ErrLeaseLost. Both may be nil
	// and may be shared by many deliveries.
	Recall, Lost <-chan struct{}
	// Last: the transport will not deliver it again; Retry and Release would lose it.
	Last bool
	// Ref is the adapter's own handle, given back in Settlement.
	Ref uint64
}

// A Settlement is the verdict on one delivery.
type Settlement struct {
	Ref    uint64
	Action Action
	Delay  time.Duration // of Retry and Release: not before
	Reply  *Message      // with Done: the answer to a message that came by Request. A Consumer leaves it nil
	// Cause says why, with Retry and Refuse: for a status or an error reply. Its text must not leave the process.
	Cause error

	// Err is the adapter's answer: nil, ErrLeaseLost where the verdict came too late, or what went wrong.
	Err error
	// Until is the adapter's answer to Extend: the new end of the lease.
	Until time.Time
}

// Action is what a Settlement does.
type Action int

func (a Action) String() string {
	switch a {
	case Done:
		return "done"
	case Retry:
		return "retry"
	case Release:
		return "release"
	case Extend:
		return "extend"
	case Refuse:
		return "refuse"
	default:
		return "unknown"
	}
}

// The actions.
const (
	// Done: handled, or safely dead-lettered. Nil means that this subscription will not deliver it again; after a crash
	// it may come again, as at least once says.
	Done Action = iota
	// Retry: it failed; deliver it again, to any member of the group, not before Delay.
	Retry
	// Release: no failure of the message; deliver it again, to another member if there is one, not before Delay. A
	// transport may count it as a delivery all the same.
	Release
	// Extend: the handler still works; start the lease anew.
	Extend
	// Refuse: given up and not dead-lettered, by a consumer without dead letters. Never deliver it again, and tell the
	// sender where there is one. Adapters that can do nothing better treat it as Done.
	Refuse
)

// An Event is what an adapter reports beside its deliveries.
type Event struct {
	Kind EventKind
	Err  error // of Disconnected and Slowed
	Gap  int64 // of Gap: how many messages are gone
}

// EventKind is the kind of an Event. More kinds will come: ignore unknown ones.
type EventKind int

func (k EventKind) String() string {
	switch k {
	case Disconnected:
		return "disconnected"
	case Reconnected:
		return "reconnected"
	case Gap:
		return "gap"
	case Slowed:
		return "slowed"
	case Resumed:
		return "resumed"
	default:
		return "unknown"
	}
}

// The kinds.
const (
	Disconnected EventKind = iota
	Reconnected
	Gap // the transport dropped messages that this group had not read
	// Slowed, by the consumer itself: message after message has failed, so one at a time is tried until one succeeds.
	// Resumed: one has.
	Slowed
	Resumed
)

// Features is what a transport really promises. It is a fact about the adapter, not a wish: NewPublisher and
// NewConsumer refuse what it does not cover, and messagingtest asserts both sides. One Subscriber has one set of
// promises; an adapter with two modes has two Subscribers. It is the most that can be had: where a topic or a group
// falls short, Open refuses.
type Features struct {
	Confirm Confirm
	Groups  bool // independent groups, members of one group compete
	Durable bool // a group keeps its place while nobody is connected
	Order   Order
	Replay  Replay
	// Attempts says who counts deliveries.
	Attempts Attempts
	// Redelivery is the longest span over which the transport itself may deliver a message again. Zero: never;
	// NoTimeout: as long as the topic keeps it, which is not known.
	Redelivery time.Duration
	// Delay is the longest delay of Retry that the transport itself holds; longer ones, and all where it is zero, wait
	// in this process while the lease lasts or can be extended. One that does not fit is settled as Retry with its Delay
	// at once, which is then a wish.
	Delay time.Duration
	// Schedule is the longest NotBefore. Zero: none.
	Schedule time.Duration
	// Dedupe is the window in which a second publish of one ID of one Source is dropped. Zero: none.
	Dedupe time.Duration
	Lease  bool // deliveries come back by themselves after Delivery.Until
	Extend bool // and the lease can be extended
	// Request: it is a Requester.
	Request bool
	// MaxBytes is the largest message, headers included. Zero: not known before sending.
	MaxBytes int
}

// Confirm is what a nil error of Publish means. It is no scale.
type Confirm int

// The confirmations.
const (
	ConfirmNone   Confirm = iota // handed to a connection: at most once
	ConfirmMemory                // stored in this process
	ConfirmBroker                // stored by the broker
	// ConfirmTx: part of the caller's transaction, stored when that commits. A Publisher over such a Sender makes one
	// attempt, without breaker and timeouts, and starts no goroutine.
	ConfirmTx
	ConfirmPeer // the receiver has handled it
)

// Order is what an Ordered consumer can rely on.
type Order int

// The orders.
const (
	OrderNone   Order = iota
	OrderReader       // readers without a group see messages in order
	OrderGroup        // also a group: one lane per key across all its members
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
	AttemptsBroker                  // the transport; a message that kills the process is bounded. It may count Release too
)
