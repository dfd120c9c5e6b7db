package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// ConsumeConfig configures Consume. The zero ConsumeConfig is right in production.
type ConsumeConfig struct {
	// Key names the operation of a message; an error or an empty key is a dead letter. Zero: source and ID of the
	// message, which CloudEvents makes unique.
	Key    func(*messaging.Message) (string, error)
	Lease  time.Duration // Zero: the consumer's
	Retain time.Duration // Zero: 7 days, or longer where a message may come again for longer
	Park   bool          // as in Config; what is parked becomes a dead letter
	// Fingerprint of the message, any bytes, so that one key with other bytes is a dead letter; nil compares nothing.
	// Zero: the body; with a Key of your own, nothing.
	Fingerprint func(*messaging.Message) []byte
	// OnEvent is called with each step. Zero: nothing is called.
	OnEvent func(ctx context.Context, e Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Consume returns a Middleware that runs the handler once per message, for the named consumer: two consumers of one
// message must not shadow each other, so the name is mandatory and is the scope.
//
// A message that was handled is acknowledged without the handler. One that another member is handling is retried when
// that member's lease would end; so is any while the store fails. One whose key was used for other bytes, or that has no
// key, is a dead letter. An error of the handler gives the claim up, so that the redelivery runs.
//
// NewConsumer refuses it where Retain is not longer than the transport may redeliver and than the consumer's MaxAge: a
// result that is forgotten earlier is a second run. Where one of them has no bound it says so in the Log.
func Consume(s Store, consumer string, c ConsumeConfig) messaging.Middleware {
	return func(next messaging.Handler, in messaging.ConsumerInfo) (messaging.Handler, error) {
		d, err := newDeduper(s, consumer, c, in)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, m *messaging.Message) error { return d.handle(ctx, next, m) }, nil
	}
}

// refuseDelay is how long a message waits for a store that fails. It is no attempt of the message.
const refuseDelay = 5 * time.Second

type deduper struct {
	teller
	store       Store
	consumer    string
	key         func(*messaging.Message) (string, error)
	fingerprint func(*messaging.Message) []byte
	lease       time.Duration
	retain      time.Duration
	park        bool
}

func newDeduper(s Store, consumer string, c ConsumeConfig, in messaging.ConsumerInfo) (*deduper, error) {
	d := &deduper{
		teller: teller{c.OnEvent, c.Log}, store: s, consumer: consumer, key: c.Key, fingerprint: c.Fingerprint,
		lease: c.Lease, retain: c.Retain, park: c.Park,
	}
	faults := []error{notNegative("Lease", c.Lease), notNegative("Retain", c.Retain)}
	if s == nil {
		return nil, errors.New("idempotency: Consume needs a store")
	}
	if err := (Key{Scope: consumer, ID: "-"}).Validate(); err != nil {
		faults = append(faults, fmt.Errorf("idempotency: the name of the consumer: %w", err))
	}

	if d.lease == 0 {
		d.lease = in.Lease
	}
	if least := s.Promises().MinLease; d.lease < least {
		faults = append(faults, fmt.Errorf("idempotency: Lease %v, this store needs %v", d.lease, least))
	}
	if c.Park && !s.Promises().Park {
		faults = append(faults, errors.New("idempotency: this store cannot Park"))
	}

	span, known := time.Duration(0), true
	for _, d := range []time.Duration{in.MaxAge, in.Features.Redelivery} {
		if d == messaging.NoTimeout {
			known = false
			continue
		}
		span = max(span, d)
	}
	if !known && c.Log != nil {
		c.Log.Warn("idempotency: nobody knows for how long a message may come again; a duplicate after Retain runs again",
			"consumer", consumer, "topic", in.Topic)
	}
	switch {
	case d.retain == 0:
		d.retain = max(7*24*time.Hour, span+min(span, messaging.NoTimeout-span, 24*time.Hour))
	case d.retain <= span:
		faults = append(faults, fmt.Errorf("idempotency: Retain %v, but %q may come again for %v", d.retain, in.Topic, span))
	}

	if d.fingerprint == nil && d.key == nil {
		d.fingerprint = body
	}
	if d.key == nil {
		d.key = messageKey
	}
	return d, errors.Join(faults...)
}

// messageKey frames the two parts: an ID is unique only within its source.
func messageKey(m *messaging.Message) (string, error) {
	if m.ID == "" {
		return "", errors.New("no ID")
	}
	return strconv.Itoa(len(m.Source)) + ":" + m.Source + m.ID, nil
}

// body is the default fingerprint. An empty body is compared like any other.
func body(m *messaging.Message) []byte {
	if m.Body == nil {
		return []byte{}
	}
	return m.Body
}

func (d *deduper) handle(ctx context.Context, next messaging.Handler, m *messaging.Message) error {
	id, err := d.key(m)
	if err != nil {
		return messaging.Reject(fmt.Errorf("%w: %w", ErrInvalidKey, err))
	}
	j := job{teller: d.teller, store: d.store, key: Key{Scope: d.consumer, ID: id}, retain: d.retain}
	j.options = BeginOptions{Lease: d.lease, Park: d.park}
	if d.fingerprint != nil {
		j.options.Fingerprint = digest(d.fingerprint(m))
	}
	j.fill(d.lease, d.retain)

	_, out, err := j.run(ctx, func(ctx context.Context) outcome {
		return outcome{err: next(ctx, m)}
	}, func() Result { return Result{Kind: Value} })

	switch {
	case errors.Is(err, ErrInvalidKey), errors.Is(err, ErrMismatch), errors.Is(err, ErrUnknown):
		return messaging.Reject(err)
	case errors.Is(err, ErrInFlight):
		return &delay{err, max(retry.Judge(err).Hint, 100*time.Millisecond)}
	case err != nil:
		return &delay{err, refuseDelay}
	case lost(out.err):
		// Somebody took over: the redelivery will find what that one recorded.
		return &delay{out.err, refuseDelay}
	}
	return out.err
}
