package main

// Who works from the events: email, inventory, analytics.

import (
	"context"
	"net/http"
	"sync"

	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/messaging"
)

// A worker is a process that handles events.
type worker struct {
	consumer *messaging.Consumer
	party    *http.Client // whom it calls; nil: nobody
}

// run returns when ctx has ended and what was begun is finished or handed back.
func (w *worker) run(ctx context.Context) error {
	err := w.consumer.Run(ctx)
	if w.party != nil {
		w.party.CloseIdleConnections()
	}
	return err
}

// newEmailWorker returns one of the workers that compete in the group "email": each order is confirmed by one of them.
// The event's ID goes on as the key of the operation: a worker that dies between the effect and the acknowledgement
// leaves a duplicate that only the party that had the effect can recognise.
func newEmailWorker(s messaging.Subscriber, gateway *http.Client, url string, c messaging.ConsumerConfig) (*messaging.Consumer, error) {
	c.Group = "email"
	send := func(ctx context.Context, e OrderCreated, m *messaging.Message) error {
		return expect2xx(post(ctx, gateway, url+"/mails", m.ID, mail{Order: e.OrderID, To: e.Email, Subject: "Thank you for your order"}))
	}
	return messaging.NewConsumer(s, orderCreated.Name, orderCreated.Handle(send), c)
}

// newInventoryWorker returns the worker of the group "inventory", that has its own copy of all events.
func newInventoryWorker(s messaging.Subscriber, warehouse *http.Client, url string, c messaging.ConsumerConfig) (*messaging.Consumer, error) {
	c.Group = "inventory"
	take := func(ctx context.Context, e OrderCreated, m *messaging.Message) error {
		return expect2xx(post(ctx, warehouse, url+"/moves", m.ID, move{Order: e.OrderID, Items: e.Items}))
	}
	return messaging.NewConsumer(s, orderCreated.Name, orderCreated.Handle(take), c)
}

func expect2xx(status int, err error) error {
	switch {
	case err != nil:
		return err
	case status >= 300:
		return &client.StatusError{Status: status}
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

func newAnalytics(s messaging.Subscriber, l *ledger, c messaging.ConsumerConfig) (*messaging.Consumer, error) {
	a := &analytics{ledger: l, seen: map[string]bool{}}
	c.Start = messaging.Earliest()
	return messaging.NewConsumer(s, orderCreated.Name, orderCreated.Handle(a.see), c)
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
