package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// RedriveConfig configures Redrive. The zero RedriveConfig sends everything back, 100 a second.
type RedriveConfig struct {
	// Filter says which dead letters go back. The others stay. Zero: all.
	Filter func(*Message) bool
	// Rate is how many a second. Zero: 100.
	Rate float64
	// Most bounds how many go back in this call. Zero: all.
	Most int
	// Group keeps the place of Redrive among the dead letters. Zero: redrive.
	Group string
	// Idle is how long nothing must come before the topic counts as empty. Zero: 3 s.
	Idle time.Duration
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// RedriveReport counts what Redrive did.
type RedriveReport struct {
	Moved   int // published to their old topic again
	Skipped int // not asked for, without an origin, or dead again since Redrive began; they stay
}

// Redrive sends dead letters back to where they came from: each under its ID, with its own headers and body, as a new
// message whose attempts begin at one, for every group of that topic. The header tandem-dead-redriven counts how often
// it was sent back; a dead letter of it has that header, too.
//
// What was sent back is settled in the dead-letter topic for this Group and not sent again by a later call; what was
// not stays, and a later call finds it. Redrive returns when nothing more comes, when Most is reached, or, with an
// error, when a message cannot be published or ctx ends. Two calls of one Group at once share the work.
//
// A group that had handled the message already, beside the one that gave it up, receives it again: package idempotency
// is for that. At most 1000 dead letters can be skipped in one call.
func Redrive(ctx context.Context, from Subscriber, dead string, to *Publisher, c RedriveConfig) (RedriveReport, error) {
	if err := c.fill(from, to); err != nil {
		return RedriveReport{}, err
	}
	d := &redrive{config: c, to: to, began: time.Now(), active: make(chan struct{}, 1)}
	ctx, d.stop = context.WithCancelCause(ctx)
	defer d.stop(nil)
	d.ended = ctx.Done()
	consumer, err := NewConsumer(from, dead, d.handle, ConsumerConfig{
		// The handler rejects nothing and every delivery is as good as the first: no dead letter of a dead letter.
		Group: c.Group, DeadLetter: dead + deadSuffix, Retry: retry.Policy{MaxAttempts: math.MaxInt32},
		Concurrency: 1, HandleTimeout: NoTimeout, Log: c.Log,
	})
	if err != nil {
		return RedriveReport{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	err = d.wait(ctx, consumer, ended)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report, errors.Join(d.err, err)
}

func (c *RedriveConfig) fill(from Subscriber, to *Publisher) error {
	var errs []error
	if from == nil || to == nil {
		return errors.New("messaging: the Subscriber or the Publisher is nil")
	}
	if f := from.Features(); !f.Groups || !f.Durable {
		errs = append(errs, fmt.Errorf("%w: a group that keeps its place", ErrUnsupported))
	}
	if f := to.Features().Confirm; f == ConfirmNone || f == ConfirmTx {
		errs = append(errs, fmt.Errorf("%w: a confirmation that means stored", ErrUnsupported))
	}
	if !(c.Rate >= 0) || math.IsInf(c.Rate, 0) { // NaN, too
		errs = append(errs, errors.New("messaging: Rate is negative or no number"))
	}
	if c.Most < 0 {
		errs = append(errs, errors.New("messaging: Most is negative"))
	}
	if c.Idle < 0 {
		errs = append(errs, errors.New("messaging: Idle is negative"))
	}
	c.Rate = cmp.Or(c.Rate, 100)
	c.Group = cmp.Or(c.Group, "redrive")
	c.Idle = cmp.Or(c.Idle, 3*time.Second)
	return errors.Join(errs...)
}

// A redrive is one call of Redrive.
type redrive struct {
	config RedriveConfig
	to     *Publisher
	began  time.Time
	active chan struct{} // a message was looked at
	busy   atomic.Bool   // one is being looked at
	stop   context.CancelCauseFunc

	ended <-chan struct{}
	next  time.Time // when the rate allows another one; of the one handler

	mu     sync.Mutex
	report RedriveReport
	err    error
}

// The ways to end that are no error.
var (
	errAllMoved = errors.New("messaging: nothing more to redrive")
	errHeld     = errors.New("messaging: this dead letter stays")
)

// wait ends the consumer when nothing has come for Idle.
func (d *redrive) wait(ctx context.Context, c *Consumer, ended <-chan error) error {
	idle := time.NewTimer(time.Hour)
	idle.Stop()
	defer idle.Stop()
	ready := c.Ready()
	for {
		select {
		case <-ready:
			ready = nil
			idle.Reset(d.config.Idle)
		case <-d.active:
			idle.Reset(d.config.Idle)
		case <-idle.C:
			if d.busy.Load() {
				idle.Reset(d.config.Idle)
				continue
			}
			d.stop(errAllMoved)
		case err := <-ended:
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errAllMoved) {
				err = errors.Join(cause, err)
			}
			return err
		}
	}
}

func (d *redrive) handle(ctx context.Context, m *Message) error {
	d.busy.Store(true)
	defer d.tick()
	if d.over() { // fetched when the end had been decided
		return hold(errHeld)
	}
	if !d.wants(m) {
		return d.skip()
	}
	if !d.pace() {
		return hold(errHeld)
	}
	if err := d.to.Publish(ctx, revive(m)); err != nil {
		d.fail(fmt.Errorf("redrive message %s: %w", m.ID, err))
		return hold(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.report.Moved++
	if d.report.Moved == d.config.Most {
		d.stop(errAllMoved)
	}
	return nil
}

func (d *redrive) over() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

func (d *redrive) tick() {
	d.busy.Store(false)
	select {
	case d.active <- struct{}{}:
	default:
	}
}

// wants reports whether m goes back: it has an origin, did not die since this call began, and is asked for.
func (d *redrive) wants(m *Message) bool {
	if CheckTopic(m.Header[headerDeadTopic]) != nil {
		return false
	}
	if last, err := time.Parse(time.RFC3339Nano, m.Header[headerDeadLast]); err == nil && !last.Before(d.began) {
		return false
	}
	return d.config.Filter == nil || d.config.Filter(m)
}

func (d *redrive) skip() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.report.Skipped++; d.report.Skipped >= maxParked {
		d.err = fmt.Errorf("messaging: Redrive: %d dead letters skipped, no more can be held back", d.report.Skipped)
		d.stop(errAllMoved)
	}
	return hold(errHeld)
}

func (d *redrive) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.stop(errAllMoved)
}

// pace waits until the rate allows another message. It reports false when the call has ended.
func (d *redrive) pace() bool {
	now := time.Now()
	if d.next.Before(now) {
		d.next = now
	}
	wait := d.next.Sub(now)
	const longest = float64(holdFor)
	d.next = d.next.Add(time.Duration(min(float64(time.Second)/d.config.Rate, longest)))
	if wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-d.ended:
		return false
	}
}

// revive returns a dead letter as the message it was.
func revive(m *Message) *Message {
	r := &Message{
		ID: m.ID, Topic: m.Header[headerDeadTopic], Key: m.Key, Type: m.Type, Source: m.Source, Body: m.Body, Time: m.Time,
		Header: maps.Clone(m.Header),
	}
	again, _ := strconv.Atoi(m.Header[headerDeadRedriven])
	maps.DeleteFunc(r.Header, func(k, _ string) bool { return strings.HasPrefix(k, headerDead) })
	r.Header[headerDeadRedriven] = strconv.Itoa(again + 1)
	return r
}

// A holdError keeps a message in hand, outside of the slots and without a count, until Run ends; then it is given back.
type holdError struct{ err error }

func hold(err error) error { return &holdError{err} }

func (e *holdError) Error() string { return e.err.Error() }
func (e *holdError) Unwrap() error { return e.err }
