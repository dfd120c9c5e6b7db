package messaging

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// A Handler handles one attempt at one message. Its return value is the acknowledgement: nil, done; an error, retried by
// policy and then dead-lettered; Reject(err), dead-lettered now; RetryAfter(err, d), this delay instead of the policy's.
// Its context ends when the lease of the message is lost, when HandleTimeout is over or when a drain has waited long
// enough, each with its cause; not when Run's context ends.
type Handler func(ctx context.Context, m *Message) error

// A Middleware wraps a Handler. NewConsumer calls it once; it may refuse. What it wraps is one attempt: retries, leases
// and dead letters are outside of it.
type Middleware func(next Handler, in ConsumerInfo) (Handler, error)

// ConsumerInfo is what a Middleware is told about the consumer it serves.
type ConsumerInfo struct {
	Topic, Group  string
	Retry         retry.Policy  // filled
	Lease         time.Duration // filled
	HandleTimeout time.Duration // filled
	Concurrency   int           // filled
	MaxAge        time.Duration // filled
	Features      Features
}

// ConsumerConfig configures a Consumer. The zero ConsumerConfig reads a topic on its own from its end.
type ConsumerConfig struct {
	// Group: consumers of one name compete for the messages, another name gets its own copy of all. Zero: no group; a
	// reader of its own, that keeps no place and dead-letters nothing.
	Group string
	// Ordered handles the messages of one Key one after another, also under retry and across members. NewConsumer
	// refuses it where the transport cannot promise that. Zero: no order.
	Ordered bool
	// Start is where a group without a place, or a reader, begins. Zero: Earliest with a group, Latest without.
	Start Start
	// Concurrency bounds the handlers at work. Zero: 16.
	Concurrency int
	// Buffer is how many messages may be fetched beyond the free handlers, their leases kept alive. Zero: none.
	Buffer int
	// BufferBytes bounds the bodies fetched and unsettled. Zero: 8 MiB.
	BufferBytes int
	// Lease is how long the transport leaves a message alone; it is extended while the handler works. Zero: 30 s.
	Lease time.Duration
	// HandleTimeout bounds one attempt. Zero: 10 min.
	HandleTimeout time.Duration
	// Retry says how often and how patiently. Zero fields: 5 attempts, from 1 s to 5 min.
	Retry retry.Policy
	// MaxAge bounds the retries of RetryAfter, which count as no attempt, since the message was published. Zero: 24 h.
	MaxAge time.Duration
	// DeadLetter is the topic of dead letters. Zero: the topic and ".dead".
	DeadLetter string
	// Dead publishes dead letters. Zero: a Publisher over the Subscriber itself, if it is a Sender; else an error.
	Dead *Publisher
	// DrainTimeout bounds the wait for handlers when Run's context ends. Zero: 25 s.
	DrainTimeout time.Duration
	// Use wraps the handler, the first outermost. Zero: nothing.
	Use []Middleware
	// The hooks are called without a lock held. Zero: nothing is called.
	OnAttempt func(ctx context.Context, e HandleAttempt)
	OnDead    func(ctx context.Context, e DeadLetter)
	OnEvent   func(ctx context.Context, e Event)
	OnSettle  func(ctx context.Context, e SettleError)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// HandleAttempt tells of one attempt that ended.
type HandleAttempt struct {
	Message  *Message
	Attempt  int // deliveries that failed before this one, plus 1
	Err      error
	Duration time.Duration
	Retry    time.Duration // the delay until the next attempt, with Again
	Again    bool
}

// DeadLetter tells of one message given up.
type DeadLetter struct {
	Message  *Message
	Topic    string // where it went
	Reason   string
	Attempts int
	Err      error
}

// SettleError tells of a verdict that did not reach the transport: the message will come again.
type SettleError struct {
	Message *Message
	Action  Action
	Err     error
}

// A Consumer runs a Handler over a subscription. Build it with NewConsumer, run it once with Run.
type Consumer struct{ info ConsumerInfo }

// NewConsumer returns a Consumer. The error joins every fault of the ConsumerConfig, what s cannot promise, and what a
// Middleware refused. It does no I/O.
func NewConsumer(s Subscriber, topic string, h Handler, c ConsumerConfig) (*Consumer, error) {
	panic("unwritten")
}

// Run consumes until ctx ends, then stops fetching, lets handlers finish within DrainTimeout, hands the rest back and
// returns nil; or an error that says how many handlers are still running. It survives a lost connection or a recreated
// group and returns before ctx ends only for an error that nothing can mend. A second Run is an error.
func (c *Consumer) Run(ctx context.Context) error { panic("unwritten") }

// Ready is closed when the transport holds the consumer's place: nothing published from then on is missed.
func (c *Consumer) Ready() <-chan struct{} { panic("unwritten") }

// Stats returns counts since Run began. It may be called at any time.
func (c *Consumer) Stats() Stats { panic("unwritten") }

// Stats counts what a Consumer did.
type Stats struct {
	Received    int64 // deliveries
	Redelivered int64 // of those, not the first of their message
	Handled     int64 // attempts that succeeded
	Failed      int64 // attempts that failed
	Late        int64 // verdicts that came after the lease was lost
	Dead        int64 // dead letters
	Released    int64 // handed back unstarted
	InFlight    int64 // handlers at work now
	Parked      int64 // waiting in this process for a delayed retry now
	Reconnects  int64 // subscriptions opened again
}

// Start is a place to begin at. The zero Start is the default of the consumer.
type Start struct {
	kind   startKind
	time   time.Time
	cursor Cursor
}

type startKind int

const (
	startDefault startKind = iota
	startEarliest
	startLatest
	startTime
	startAfter
)

// Earliest begins at the oldest message that is kept.
func Earliest() Start { return Start{kind: startEarliest} }

// Latest begins with what is published from now on.
func Latest() Start { return Start{kind: startLatest} }

// FromTime begins with the first message published at t or later.
func FromTime(t time.Time) Start { return Start{kind: startTime, time: t} }

// After begins with the message that follows c.
func After(c Cursor) Start { return Start{kind: startAfter, cursor: c} }

// IsEarliest reports whether s is Earliest; for adapters.
func (s Start) IsEarliest() bool { return s.kind == startEarliest }

// IsLatest reports whether s is Latest; for adapters.
func (s Start) IsLatest() bool { return s.kind == startLatest }

// Time returns the time of FromTime; for adapters.
func (s Start) Time() (time.Time, bool) { return s.time, s.kind == startTime }

// Cursor returns the cursor of After; for adapters.
func (s Start) Cursor() (Cursor, bool) { return s.cursor, s.kind == startAfter }
