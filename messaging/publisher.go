package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
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
type Publisher struct {
	sender   Sender
	features Features
	config   PublisherConfig // filled
	ids      idSource

	// window holds one token per message of Go that is not answered yet.
	window chan struct{}

	mu      sync.Mutex // guards the queue of Go
	queue   []asyncMessage
	pumping bool
	entered int64             // messages that Go took
	batches []*asyncBatch     // taken from the queue and not answered, oldest first
	waiters []*flushWaiter    // Flush calls under way
	sources map[string]string // "/" and topic, by topic; bounded
}

// NewPublisher returns a Publisher over s. The error joins every fault of the PublisherConfig, and says what s cannot
// promise. It does no I/O.
func NewPublisher(s Sender, c PublisherConfig) (*Publisher, error) {
	if s == nil {
		return nil, errors.New("messaging: NewPublisher: the Sender is nil")
	}
	var errs []error
	if c.Timeout < 0 {
		errs = append(errs, errors.New("messaging: Timeout is negative; NoTimeout switches it off"))
	}
	if c.AttemptTimeout < 0 {
		errs = append(errs, errors.New("messaging: AttemptTimeout is negative; NoTimeout switches it off"))
	}
	if c.Window < 0 {
		errs = append(errs, errors.New("messaging: Window is negative"))
	}
	if err := checkValue(c.Source); err != nil {
		errs = append(errs, fmt.Errorf("messaging: Source %w", err))
	}
	if err := c.Retry.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("messaging: Retry: %w", err))
	}
	f := s.Features()
	if f.Confirm == ConfirmNone && !c.AtMostOnce {
		errs = append(errs, fmt.Errorf("%w: it confirms nothing; AtMostOnce accepts that", ErrUnsupported))
	}
	if err := fillPublisher(&c); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Publisher{
		sender: s, features: f, config: c,
		window:  make(chan struct{}, c.Window),
		sources: make(map[string]string),
	}, nil
}

func fillPublisher(c *PublisherConfig) error {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = 3 * time.Second
	}
	if c.Window <= 0 {
		c.Window = 1024
	}
	var errs []error
	budget := c.Retry.Budget
	if budget == nil {
		var err error
		budget, err = retry.NewBudget(retry.BudgetConfig{})
		errs = append(errs, err)
	}
	c.Retry = c.Retry.Or(retry.Policy{
		MaxAttempts: 3, BaseDelay: 50 * time.Millisecond, MaxDelay: 2 * time.Second, MaxHint: 30 * time.Second,
		Budget: budget,
	})
	if c.Breakers == nil {
		var err error
		c.Breakers, err = breaker.NewGroup(breaker.GroupConfig{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Features returns those of the Sender.
func (p *Publisher) Features() Features { return p.features }

// Publish returns nil when the transport has all messages; else a *PublishError that names each that is not stored, or
// of which that is not known. A retry sends only what is not stored, under the same ID. The messages of one call that
// share a Key are stored in their order: when one fails, the later ones of its key are not sent.
//
// A message whose confirmation was lost is sent again under its ID. Where the transport drops the second (see
// Features.Dedupe) nothing is doubled; where it does not, or not for so long, consumers see one ID twice, which is what
// at least once means.
//
// A published message carries no deadline: the end of ctx ends the publishing, not the handling.
func (p *Publisher) Publish(ctx context.Context, m ...*Message) error {
	if len(m) == 0 {
		return nil
	}
	b := batch{messages: m}
	p.prepare(&b)
	if len(b.pending) == 0 {
		return b.err()
	}
	if p.features.Confirm == ConfirmTx {
		return p.publishTx(ctx, &b)
	}
	if ctx.Err() != nil {
		for _, index := range b.pending {
			b.fail(index, false, &retry.Error{Reason: retry.Cancelled, Cause: context.Cause(ctx)})
		}
		return b.err()
	}
	tries := p.config.Retry.Start(withDeadline(ctx, p.config.Timeout))
	for {
		outcome, failed := p.attempt(tries.Context(), &tries, &b) //nolint:contextcheck // Start made it of ctx
		if !failed {
			return b.err()
		}
		if !tries.Again(outcome) {
			b.giveUp(&tries)
			return b.err()
		}
		if err := tries.Wait(); err != nil {
			b.giveUp(&tries)
			return b.err()
		}
	}
}

// A deadlineContext has a deadline and does not end by itself: each attempt ends by it, and no wait is begun that would
// outlive it. So the overall timeout costs no timer.
type deadlineContext struct {
	context.Context
	deadline time.Time
}

func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, true }

func withDeadline(ctx context.Context, d time.Duration) context.Context {
	if d == NoTimeout {
		return ctx
	}
	deadline := time.Now().Add(d)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		return ctx
	}
	return &deadlineContext{ctx, deadline}
}

// publishTx sends within the caller's transaction, once: after a failure the transaction takes nothing more, and a timeout
// of ours would end the caller's connection.
func (p *Publisher) publishTx(ctx context.Context, b *batch) error {
	rest := b.pending
	for len(rest) > 0 {
		var group []int
		group, rest = b.takeTopic(rest)
		if err := p.send(ctx, b, group); err != nil {
			b.record(nil, group, err)
			for _, index := range rest {
				b.fail(index, false, err)
			}
			break
		}
	}
	return b.err()
}

// prepare fills and checks the messages and lists those that may be sent.
func (p *Publisher) prepare(b *batch) {
	now := time.Now()
	var ids strings.Builder
	b.pending = make([]int, 0, len(b.messages))
	for i, m := range b.messages {
		if m == nil {
			b.fail(i, false, fmt.Errorf("%w: the message is nil", ErrInvalid))
			continue
		}
		if b.blocked(m) {
			b.fail(i, false, errKeyBlocked)
			continue
		}
		if m.ID == "" {
			if ids.Cap() == 0 {
				ids.Grow(uuidLen * (len(b.messages) - i)) // one allocation for the IDs of a batch
			}
			m.ID = p.ids.next(now, &ids)
		}
		p.fill(m, now)
		if err := p.check(m, now); err != nil {
			b.fail(i, false, err)
			continue
		}
		b.pending = append(b.pending, i)
	}
}

// fill writes what the user left to the library. It is done once, before the first attempt, so that every attempt
// sends the same message.
func (p *Publisher) fill(m *Message, now time.Time) {
	if m.Time.IsZero() {
		m.Time = now.Round(0) // the wall clock only: it travels
	}
	if m.Source == "" {
		m.Source = p.source(m.Topic)
	}
}

func (p *Publisher) source(topic string) string {
	if p.config.Source != "" {
		return p.config.Source
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.sources[topic]
	if !ok {
		s = "/" + topic
		if len(p.sources) < 256 {
			p.sources[topic] = s
		}
	}
	return s
}

// check refuses what no transport could carry, and what this one does not promise.
func (p *Publisher) check(m *Message, now time.Time) error {
	if err := m.check(); err != nil {
		return err
	}
	if limit := p.features.MaxBytes; limit > 0 {
		if size := m.size(); size > limit {
			return &TooLargeError{Size: size, Limit: limit}
		}
	}
	if m.NotBefore.IsZero() || !m.NotBefore.After(now) {
		return nil
	}
	if wait := m.NotBefore.Sub(now); wait > p.features.Schedule {
		if p.features.Schedule == 0 {
			return fmt.Errorf("%w: NotBefore", ErrUnsupported)
		}
		return fmt.Errorf("%w: NotBefore is %v away, more than %v", ErrUnsupported, wait, p.features.Schedule)
	}
	return nil
}

// attempt sends everything pending once, topic by topic. It reports what to ask the retry policy, and whether there is
// anything to ask about.
func (p *Publisher) attempt(ctx context.Context, tries *retry.Tries, b *batch) (retry.Outcome, bool) {
	ctx, cancel := p.attemptContext(ctx, tries)
	defer cancel()
	var outcome retry.Outcome
	outcome.Refused = true
	rest, again := b.pending, b.again[:0]
	for len(rest) > 0 {
		var group []int
		group, rest = b.takeTopic(rest)
		err := p.sendTopic(ctx, tries.Attempt(), b, group)
		again = b.record(again, group, err)
		if err != nil {
			merge(&outcome, err)
		}
	}
	b.again, b.pending = b.pending, again
	return outcome, len(again) > 0
}

// merge collects the errors of several topics into one question.
func merge(o *retry.Outcome, err error) {
	if o.Err == nil {
		o.Err = err
	}
	if d, ok := hintOf(err); ok {
		o.Hint, o.Hinted = max(o.Hint, d), true
	}
	o.Refused = o.Refused && errors.Is(err, breaker.ErrOpen)
	o.Free = o.Refused
}

// attemptContext bounds one attempt. It leaves time for another one while there may be one.
func (p *Publisher) attemptContext(ctx context.Context, tries *retry.Tries) (context.Context, context.CancelFunc) {
	d := p.config.AttemptTimeout
	deadline, bounded := ctx.Deadline()
	now := time.Now()
	if bounded {
		left := deadline.Sub(now)
		if !tries.Last() {
			left = max(left/2, time.Millisecond)
		}
		d = min(d, left)
	}
	if d == NoTimeout {
		return ctx, func() {}
	}
	// Not later than the deadline: then context would leave the timer to the parent, which has none.
	end := now.Add(d)
	if bounded && end.After(deadline) {
		end = deadline
	}
	return context.WithDeadline(ctx, end)
}

// sendTopic sends the messages of one topic once, through its breaker. The error is nil, the breaker's refusal, or what
// the Sender said.
func (p *Publisher) sendTopic(ctx context.Context, attempt int, b *batch, group []int) error {
	topic := b.messages[group[0]].Topic
	started := time.Now()
	permit, err := p.config.Breakers.Get(topic).Allow() //nolint:contextcheck // a permit waits for nothing
	if err == nil {
		err = p.send(ctx, b, group)
		permit.Done(judge(ctx, err)) //nolint:contextcheck // hooks of the breaker are no part of the call
	}
	if hook := p.config.OnAttempt; hook != nil {
		contain(p.config.Log, func() {
			hook(ctx, PublishAttempt{
				Number: attempt, Topic: topic, Messages: len(group), Err: err, Duration: time.Since(started),
			})
		})
	}
	if err != nil && p.config.Log != nil {
		p.config.Log.LogAttrs(ctx, slog.LevelWarn, "messaging: publish attempt failed", slog.String("topic", topic),
			slog.Int("attempt", attempt), slog.Int("messages", len(group)), slog.Any("error", err))
	}
	return err
}

func (p *Publisher) send(ctx context.Context, b *batch, group []int) error {
	if len(group) == len(b.messages) {
		return p.sender.Send(ctx, b.messages)
	}
	m := make([]*Message, len(group))
	for i, index := range group {
		m[i] = b.messages[index]
	}
	return p.sender.Send(ctx, m)
}

// judge tells the breaker of a topic whether the transport is well. An answer about one message, however unwelcome, is
// an answer.
func judge(ctx context.Context, err error) breaker.Outcome {
	if err == nil {
		return breaker.Success
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return breaker.Ignored
	}
	pe, ok := errors.AsType[*PublishError](err)
	if !ok {
		if isFinal(err) {
			return breaker.Success
		}
		return breaker.Failure
	}
	for _, f := range pe.Failed {
		if !isFinal(f.Err) {
			return breaker.Failure
		}
	}
	return breaker.Success
}

// isFinal reports whether no other attempt at the same message can succeed.
func isFinal(err error) bool {
	if isPermanent(err) || errors.Is(err, ErrUnknownTopic) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrClosed) || errors.Is(err, ErrInvalid) || errors.Is(err, errKeyBlocked) {
		return true
	}
	_, tooLarge := errors.AsType[*TooLargeError](err)
	return tooLarge
}

// contain calls a hook and keeps its panic out of the caller.
func contain(log *slog.Logger, f func()) {
	defer func() {
		if v := recover(); v != nil && log != nil {
			log.Error("messaging: a hook panicked", slog.Any("panic", v))
		}
	}()
	f()
}
