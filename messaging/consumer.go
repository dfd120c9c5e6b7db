package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// A Handler handles one attempt at one message. Its return value is the acknowledgement: nil, done; an error, retried by
// policy and then dead-lettered; Reject(err), dead-lettered now; RetryAfter(err, d), this delay instead of the policy's.
// Its context ends when the lease of the message is lost, when HandleTimeout is over or when a drain has waited long
// enough, each with its cause; not when Run's context ends. It must not be used after the handler has returned.
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
	// Group: consumers of one name compete for the messages, another name gets its own copy of all. It is letters,
	// digits, - and _, of 128 bytes at most. Zero: no group; a reader of its own, that keeps no place, retries in this
	// process, and writes dead letters only if DeadLetter or Dead is set.
	Group string
	// Ordered handles the messages of one Key one after another, also under retry and across members. NewConsumer
	// refuses it where the transport cannot promise that. Zero: no order.
	Ordered bool
	// Start is where a group without a place, or a reader, begins. Zero: Earliest with a group, if the transport keeps
	// a log; Latest without.
	Start Start
	// Concurrency bounds the handlers at work. Zero: 16.
	Concurrency int
	// Buffer is how many messages may be fetched beyond the free handlers, their leases kept alive. Zero: none.
	Buffer int
	// BufferBytes bounds the bodies fetched and unsettled; a message larger than that comes alone. What waits for its
	// retry in this process has half of it; beyond that it waits with the transport, if that can take it. Zero: 8 MiB.
	BufferBytes int
	// Lease is how long the transport leaves a message alone; it is extended while the handler works. Zero: 30 s.
	Lease time.Duration
	// HandleTimeout bounds one attempt. Zero: 10 min.
	HandleTimeout time.Duration
	// Retry says how often and how patiently. Its Budget and MaxHint are not asked. Zero fields: 10 attempts, from 1 s
	// to 5 min: a message is given up 4 minutes after its first failure on average, 9 at most.
	Retry retry.Policy
	// MaxAge bounds the retries of RetryAfter, which count as no attempt, since the message was published; one that was
	// older when it came may wait for a 24th of it. Zero: 24 h.
	MaxAge time.Duration
	// DeadLetter is the topic of dead letters. Zero: the topic and ".dead".
	DeadLetter string
	// Dead publishes dead letters. What it confirms must be stored: the original is settled after it. Zero: a Publisher
	// over the Subscriber itself, if it is a Sender; else an error. Over a transport that confirms nothing there are no
	// dead letters then: what is given up is logged, and refused.
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
	Panic    bool // the handler panicked, or ended its goroutine; the stack is in the log and in the dead letter
}

// SettleError tells of a verdict that did not reach the transport: the message will come again.
type SettleError struct {
	Message *Message
	Action  Action
	Err     error
}

// A Consumer runs a Handler over a subscription. Build it with NewConsumer, run it once with Run. Ready and Stats may be
// called by any number of goroutines at any time.
type Consumer struct {
	source   Subscriber
	features Features
	topic    string
	config   ConsumerConfig // filled
	handler  Handler        // with every Middleware around it
	ready    chan struct{}
	started  atomic.Bool
	run      atomic.Pointer[run]
}

// NewConsumer returns a Consumer. The error joins every fault of the ConsumerConfig, what s cannot promise, and what a
// Middleware refused. It does no I/O.
func NewConsumer(s Subscriber, topic string, h Handler, c ConsumerConfig) (*Consumer, error) {
	if s == nil || h == nil {
		return nil, errors.New("messaging: NewConsumer: the Subscriber or the Handler is nil")
	}
	f := s.Features()
	errs := c.validate(topic, f)
	if err := c.fill(s, topic, f); err != nil {
		errs = append(errs, err)
	}
	info := ConsumerInfo{
		Topic: topic, Group: c.Group, Retry: c.Retry, Lease: c.Lease, HandleTimeout: c.HandleTimeout,
		Concurrency: c.Concurrency, MaxAge: c.MaxAge, Features: f,
	}
	for i := len(c.Use) - 1; i >= 0; i-- {
		next, err := c.Use[i](h, info)
		if err != nil {
			errs = append(errs, fmt.Errorf("messaging: Use[%d]: %w", i, err))
			continue
		}
		if next == nil {
			errs = append(errs, fmt.Errorf("messaging: Use[%d] returned no Handler", i))
			continue
		}
		h = next
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Consumer{source: s, features: f, topic: topic, config: c, handler: h, ready: make(chan struct{})}, nil
}

// validate reports what is wrong in itself and what the transport does not promise.
func (c *ConsumerConfig) validate(topic string, f Features) []error {
	var errs []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if err := CheckTopic(topic); err != nil {
		errs = append(errs, err)
	}
	if c.Group != "" {
		if err := checkGroup(c.Group); err != nil {
			errs = append(errs, err)
		}
	}
	if err := c.Retry.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("messaging: Retry: %w", err))
	}
	add(c.Concurrency < 0, "messaging: Concurrency is negative")
	add(c.Buffer < 0, "messaging: Buffer is negative")
	add(c.BufferBytes < 0, "messaging: BufferBytes is negative")
	add(c.Lease < 0, "messaging: Lease is negative")
	add(c.HandleTimeout < 0, "messaging: HandleTimeout is negative; NoTimeout switches it off")
	add(c.MaxAge < 0, "messaging: MaxAge is negative; NoTimeout switches it off")
	add(c.DrainTimeout < 0, "messaging: DrainTimeout is negative")
	add(c.DeadLetter == topic && topic != "", "messaging: DeadLetter is the topic itself")
	if c.Dead != nil {
		confirm := c.Dead.Features().Confirm
		add(confirm == ConfirmNone || confirm == ConfirmTx,
			"%w: Dead: its confirmation does not mean that the dead letter is stored", ErrUnsupported)
	}
	add(c.Group != "" && c.DeadLetter == "" && strings.HasSuffix(topic, deadSuffix),
		"messaging: a consumer of dead letters must name its own DeadLetter")
	if c.DeadLetter != "" {
		if err := CheckTopic(c.DeadLetter); err != nil {
			errs = append(errs, fmt.Errorf("messaging: DeadLetter: %w", err))
		}
	}
	add(c.Group != "" && !f.Groups, "%w: Group", ErrUnsupported)
	add(c.Ordered && c.Group != "" && f.Order < OrderGroup, "%w: Ordered with a Group", ErrUnsupported)
	add(c.Ordered && c.Group == "" && f.Order < OrderReader, "%w: Ordered", ErrUnsupported)
	switch c.Start.kind {
	case startEarliest:
		add(f.Replay < ReplayEarliest, "%w: Start: Earliest", ErrUnsupported)
	case startTime:
		add(f.Replay < ReplayTime, "%w: Start: FromTime", ErrUnsupported)
	case startAfter:
		add(f.Replay < ReplayCursor, "%w: Start: After", ErrUnsupported)
	}
	return errs
}

const deadSuffix = ".dead"

// fill replaces every zero by its default.
func (c *ConsumerConfig) fill(s Subscriber, topic string, f Features) error {
	c.Concurrency = cmp.Or(c.Concurrency, 16)
	c.BufferBytes = cmp.Or(c.BufferBytes, 8<<20)
	c.Lease = cmp.Or(c.Lease, 30*time.Second)
	c.HandleTimeout = cmp.Or(c.HandleTimeout, 10*time.Minute)
	c.MaxAge = cmp.Or(c.MaxAge, 24*time.Hour)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 25*time.Second)
	c.Retry = c.Retry.Or(retry.Policy{MaxAttempts: 10, BaseDelay: time.Second, MaxDelay: 5 * time.Minute})
	if c.Start.kind == startDefault {
		c.Start = Latest()
		if c.Group != "" && f.Replay >= ReplayEarliest {
			c.Start = Earliest()
		}
	}
	return c.fillDead(s, topic, f)
}

func (c *ConsumerConfig) fillDead(s Subscriber, topic string, f Features) error {
	if c.Group == "" && c.DeadLetter == "" && c.Dead == nil {
		return nil
	}
	if c.Dead == nil && c.DeadLetter == "" && f.Confirm == ConfirmNone {
		return nil
	}
	if c.DeadLetter == "" {
		c.DeadLetter = topic + deadSuffix
		if err := CheckTopic(c.DeadLetter); err != nil && CheckTopic(topic) == nil {
			return fmt.Errorf("messaging: DeadLetter must be named: %w", err)
		}
	}
	if c.Dead != nil {
		return nil
	}
	sender, ok := s.(Sender)
	if !ok {
		return errors.New("messaging: Dead is nil, and the Subscriber is no Sender")
	}
	var err error
	c.Dead, err = NewPublisher(sender, PublisherConfig{Log: c.Log})
	return err
}

// Ready is closed when the transport holds the consumer's place: nothing published from then on is missed. It stays open
// where Run ends before that: wait for it beside Run's return.
func (c *Consumer) Ready() <-chan struct{} { return c.ready }

// Lag returns how far the group, or the reader, is behind: ErrUnsupported where the transport cannot tell, ErrClosed
// while no subscription is open.
func (c *Consumer) Lag(ctx context.Context) (Lag, error) {
	sub := c.subscription()
	if sub == nil {
		return Lag{}, fmt.Errorf("messaging: lag of %s: %w", c.topic, ErrClosed)
	}
	l, ok := sub.(Lagger)
	if !ok {
		return Lag{}, fmt.Errorf("messaging: lag of %s: %w", c.topic, ErrUnsupported)
	}
	return l.Lag(ctx)
}

// subscription is the one that is open, if any.
func (c *Consumer) subscription() Subscription {
	r := c.run.Load()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.sources); n > 0 && !r.sources[n-1].over && !r.closed {
		return r.sources[n-1].sub
	}
	return nil
}

// Stats returns counts since Run began. It may be called at any time.
func (c *Consumer) Stats() Stats {
	r := c.run.Load()
	if r == nil {
		return Stats{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.InFlight, s.Parked = int64(r.running), int64(r.parked)
	return s
}

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
