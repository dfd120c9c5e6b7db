package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	if len(c.Source) > maxString {
		errs = append(errs, fmt.Errorf("messaging: Source has %d bytes, more than %d", len(c.Source), maxString))
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
		c.Timeout = call.DefaultTimeout
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = call.DefaultAttemptTimeout
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
		c.Breakers, err = breaker.NewGroup(breaker.GroupConfig{
			Config: breaker.Config{ProbeLease: call.ProbeLease(c.AttemptTimeout)},
		})
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
	now := time.Now()
	if call.Ended(ctx, now) != nil {
		for _, index := range b.pending {
			b.fail(index, false, &retry.Error{Reason: retry.Cancelled, Cause: endOf(ctx)})
		}
		return b.err()
	}
	if p.features.Confirm == ConfirmTx {
		return p.publishTx(ctx, &b)
	}
	tries := p.config.Retry.Start(p.bound(ctx, now))
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

// bound returns ctx with the overall timeout, which costs no timer: see call.Bounded.
func (p *Publisher) bound(ctx context.Context, now time.Time) context.Context {
	if p.config.Timeout == NoTimeout {
		return ctx
	}
	until := now.Add(p.config.Timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(until) {
		return ctx
	}
	return &call.Bounded{Context: ctx, Until: until}
}

// publishTx sends within the caller's transaction, once: after a failure the transaction takes nothing more, and a timeout
// of ours would end the caller's connection.
func (p *Publisher) publishTx(ctx context.Context, b *batch) error {
	rest := b.pending
	for len(rest) > 0 {
		var group []int
		group, rest = b.takeTopic(rest)
		began := time.Now()
		err := p.send(ctx, b, group)
		p.tellAttempt(ctx, 1, b, group, err, began)
		if err != nil {
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
		if err := p.check(m, now); err != nil {
			b.fail(i, false, err)
			continue
		}
		if m.ID == "" {
			if ids.Cap() == 0 {
				ids.Grow(uuidLen * (len(b.messages) - i)) // one allocation for the IDs of a batch
			}
			m.ID = p.ids.next(now, &ids)
		}
		p.fill(m, now)
		b.pending = append(b.pending, i)
	}
}

// fill writes what the user left to the library. It is done once, before the first attempt, so that every attempt
// sends the same message; and after check, so that a message that is refused is left as it was.
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
		size := m.size()
		if m.ID == "" { // what fill will add
			size += 2 * uuidLen
		}
		if m.Source == "" {
			size += 2 * max(len(p.config.Source), 1+len(m.Topic))
		}
		if size > limit {
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
	var all tally
	rest, again := b.pending, b.again[:0]
	for len(rest) > 0 {
		var group []int
		group, rest = b.takeTopic(rest)
		guard := p.config.Breakers.Get(b.messages[group[0]].Topic)
		err := p.sendTopic(ctx, guard, tries, b, group)
		before := len(again)
		again = b.record(again, group, err)
		if len(again) > before {
			all.add(err, guard.RetryAfter())
		}
	}
	b.again, b.pending = b.pending, again
	return all.outcome(), len(again) > 0
}

// A tally makes one question to the retry policy of what several topics came to.
type tally struct {
	topics, refused, shut int           // those that failed; of them refused by their breaker; whose breaker is open now
	opens                 time.Duration // when the first of the open breakers may admit again
	hint                  time.Duration // the longest wish of the transport
	hinted                bool
	err                   error
}

func (t *tally) add(err error, opens time.Duration) {
	t.topics++
	if t.err == nil {
		t.err = err
	}
	if opens > 0 {
		if t.shut++; t.shut == 1 || opens < t.opens {
			t.opens = opens
		}
	}
	o := retry.Judge(err)
	if o.Refused {
		t.refused++
	} else if o.Hinted {
		t.hint, t.hinted = max(t.hint, o.Hint), true
	}
}

// outcome waits for a breaker only where there is nothing else to send.
func (t *tally) outcome() retry.Outcome {
	refused := t.refused == t.topics
	o := retry.Outcome{Err: t.err, Hint: t.hint, Hinted: t.hinted, Refused: refused, Free: refused}
	if t.shut == t.topics {
		o.Open = t.opens
	}
	return o
}

// sendTopic sends the messages of one topic once, through its breaker and within an attempt timeout of their own. The
// error is nil, the breaker's refusal, or what the Sender said.
func (p *Publisher) sendTopic(ctx context.Context, guard *breaker.Breaker, tries *retry.Tries, b *batch, group []int) error {
	now := time.Now()
	if call.Ended(ctx, now) != nil { // an earlier topic has taken all the time
		return notSent(len(group), endOf(ctx))
	}
	permit, err := guard.Allow() //nolint:contextcheck // a permit waits for nothing
	if err == nil {
		err = p.sendWithin(ctx, permit, tries, b, group, now)
	}
	p.tellAttempt(ctx, tries.Attempt(), b, group, err, now)
	return err
}

func (p *Publisher) sendWithin(
	ctx context.Context, permit *breaker.Permit, tries *retry.Tries, b *batch, group []int, now time.Time,
) error {
	ctx, cancel := p.attemptContext(ctx, tries, now)
	defer cancel()
	outcome := breaker.Ignored              // what a panic leaves: it says nothing about the transport
	defer func() { permit.Done(outcome) }() //nolint:contextcheck // hooks of the breaker are no part of the call
	err := p.send(ctx, b, group)
	outcome = p.judge(ctx, err, now)
	return err
}

// attemptContext bounds one attempt. It leaves time for another one while there may be one.
func (p *Publisher) attemptContext(ctx context.Context, tries *retry.Tries, now time.Time) (context.Context, context.CancelFunc) {
	limit := p.config.AttemptTimeout
	deadline, bounded := ctx.Deadline()
	if bounded {
		limit = call.Limit(limit, deadline.Sub(now), !tries.Last())
	}
	if limit == NoTimeout {
		return ctx, func() {}
	}
	// Not later than the deadline: then context would leave the timer to the parent, which has none.
	end := now.Add(limit)
	if bounded && end.After(deadline) {
		end = deadline
	}
	return context.WithDeadline(ctx, end)
}

// judge tells the breaker of a topic whether the transport is well. An answer about one message, however unwelcome, is
// an answer; the end of the caller says nothing, nor does that of its time when there was too little of it.
func (p *Publisher) judge(ctx context.Context, err error, began time.Time) breaker.Outcome {
	if err == nil || answers(err) {
		return breaker.Success
	}
	now := time.Now()
	if ended := call.Ended(ctx, now); ended != nil {
		late := errors.Is(ended, context.DeadlineExceeded)
		if !late || now.Sub(began) < call.Telling(p.config.AttemptTimeout) {
			return breaker.Ignored
		}
	}
	if retry.Judge(err).Refused { // by a breaker further in
		return breaker.Ignored
	}
	return breaker.Failure
}

// answers reports whether err is the transport's last word on each message that it names.
func answers(err error) bool {
	pe, ok := errors.AsType[*PublishError](err)
	if !ok || len(pe.Failed) == 0 {
		return isFinal(err)
	}
	return !slices.ContainsFunc(pe.Failed, func(f Failure) bool { return !isFinal(f.Err) })
}

// notSent says that n messages were not given to the Sender.
func notSent(n int, why error) error {
	e := &PublishError{Failed: make([]Failure, n)}
	for i := range e.Failed {
		e.Failed[i] = Failure{Index: i, Err: why}
	}
	return e
}

// endOf is why ctx has ended. Its deadline may have passed with no timer to see to it.
func endOf(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return context.DeadlineExceeded
}

func (p *Publisher) tellAttempt(ctx context.Context, attempt int, b *batch, group []int, err error, began time.Time) {
	topic := b.messages[group[0]].Topic
	if hook := p.config.OnAttempt; hook != nil {
		contain(p.config.Log, func() {
			hook(ctx, PublishAttempt{
				Number: attempt, Topic: topic, Messages: len(group), Err: err, Duration: time.Since(began),
			})
		})
	}
	if err != nil && p.config.Log != nil {
		p.config.Log.LogAttrs(ctx, slog.LevelWarn, "messaging: publish attempt failed", slog.String("topic", topic),
			slog.Int("attempt", attempt), slog.Int("messages", len(group)), slog.Any("error", err))
	}
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
