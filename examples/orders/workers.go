package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// workerConfig is what the consumers have in common.
type workerConfig struct {
	lease   time.Duration
	retry   retry.Policy
	use     []messaging.Middleware // outermost first
	metrics *metrics
	log     *slog.Logger
}

// newEmailWorker returns one of the workers that compete in the group "email": each order is confirmed by one of them.
func newEmailWorker(s messaging.Subscriber, gateway *http.Client, url string, c workerConfig) (*messaging.Consumer, error) {
	send := func(ctx context.Context, e OrderCreated, m *messaging.Message) error {
		return expect2xx(post(ctx, gateway, url+"/mails", m.ID, mail{Order: e.OrderID, To: e.Email, Subject: "Thank you for your order"}))
	}
	return c.group(s, "email", send)
}

// newInventoryWorker returns the worker of the group "inventory", that has its own copy of all events.
func newInventoryWorker(s messaging.Subscriber, warehouse *http.Client, url string, c workerConfig) (*messaging.Consumer, error) {
	take := func(ctx context.Context, e OrderCreated, m *messaging.Message) error {
		return expect2xx(post(ctx, warehouse, url+"/moves", m.ID, move{Order: e.OrderID, Items: e.Items}))
	}
	return c.group(s, "inventory", take)
}

// group returns a consumer whose handler has its effect once per event, however often the event is delivered. The event's
// ID goes on as the key of the operation: a worker that dies between the effect and the acknowledgement leaves a
// duplicate that only the party that had the effect can recognise.
func (c workerConfig) group(s messaging.Subscriber, name string, h func(context.Context, OrderCreated, *messaging.Message) error) (*messaging.Consumer, error) {
	return messaging.NewConsumer(s, orderCreated.Name, orderCreated.Handle(h), messaging.ConsumerConfig{
		Group:     name,
		Lease:     c.lease,
		Retry:     c.retry,
		Use:       c.use,
		OnAttempt: c.metrics.handled,
		Log:       c.log,
	})
}

func expect2xx(status int, err error) error {
	switch {
	case err != nil:
		return err
	case status >= 300:
		return fmt.Errorf("answered %d", status)
	}
	return nil
}

// analytics reads the stream from its start, on its own: it keeps no place with the broker, and the workers do not
// notice it. What it derives is keyed by order, so that reading an event again changes nothing.
type analytics struct {
	ledger *ledger

	mu   sync.Mutex
	seen map[string]bool
}

func (a *analytics) consumer(s messaging.Subscriber, c workerConfig) (*messaging.Consumer, error) {
	return messaging.NewConsumer(s, orderCreated.Name, orderCreated.Handle(a.see), messaging.ConsumerConfig{
		Start:     messaging.Earliest(),
		Retry:     c.retry,
		OnAttempt: c.metrics.handled,
		Log:       c.log,
	})
}

func (a *analytics) see(_ context.Context, e OrderCreated, m *messaging.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := line{Event: effected, Order: e.OrderID, Key: m.ID, Cents: e.Cents, Items: e.Items, Known: a.seen[e.OrderID]}
	if l.Known {
		l.Event = called
	}
	if err := a.ledger.write(l); err != nil {
		return err
	}
	a.seen[e.OrderID] = true
	return nil
}

// once returns the middleware that keeps the workers of a group from handling an event twice.
func once(s idempotency.Store, group string, m *metrics, log *slog.Logger) messaging.Middleware {
	return idempotency.Consume(s, group, idempotency.ConsumeConfig{OnEvent: m.decided("consumers"), Log: log})
}
