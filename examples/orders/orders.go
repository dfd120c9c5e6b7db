package main

// The orders service: placed, charged, published.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/messaging"
)

// OrderCreated is the event that everybody else works from.
type OrderCreated struct {
	OrderID string `json:"order_id"`
	UserID  string `json:"user_id"`
	Email   string `json:"email"`
	Items   []item `json:"items"`
	Cents   int64  `json:"cents"`
}

// orderCreated ties the topic to its type. An order is created once, so its id is the event's: however often it is
// published, it is one event.
var orderCreated = messaging.Topic[OrderCreated]{
	Name: "order.created",
	Key:  func(e OrderCreated) string { return e.UserID },
	ID:   func(e OrderCreated) string { return e.OrderID },
}

// orders is the OrderService. It carries each order from placed over charged to published, and may be killed at any
// moment: what it was about to do is in the journal, and everything it does may be done again under the same key.
type orders struct {
	ordersproto.UnimplementedOrderServiceServer

	journal  *journal
	payments *paymentsClient
	events   *messaging.Publisher
	resumes  time.Duration // how often unfinished orders are taken up again
	metrics  *metrics
	log      *slog.Logger

	grpc *grpc.Server

	mu   sync.Mutex
	left map[string]string // orders that nobody is working on and that are not finished, and why
}

// open prepares the gRPC server.
func (o *orders) open() error {
	options, err := grpcclient.ServerOptions(grpcclient.InboundConfig{})
	if err != nil {
		return err
	}
	o.left = map[string]string{}
	o.grpc = grpc.NewServer(append(options, grpc.WaitForHandlers(true))...)
	ordersproto.RegisterOrderServiceServer(o.grpc, o)
	return nil
}

// run serves l and resumes what is unfinished until ctx ends. Then it finishes the calls under way and returns.
func (o *orders) run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { o.resume(ctx) })
	work.Go(func() {
		<-ctx.Done()
		o.grpc.GracefulStop()
	})
	err := o.grpc.Serve(l)
	cancel()
	work.Wait()
	return err
}

// stop ends run at once, as a crash does: calls under way are cut.
func (o *orders) stop() { o.grpc.Stop() }

// CreateOrder implements ordersproto.OrderServiceServer.
func (o *orders) CreateOrder(ctx context.Context, in *ordersproto.CreateOrderRequest) (*ordersproto.Order, error) {
	r, err := newRecord(in)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	found, fresh, err := o.journal.place(ctx, r)
	if err != nil {
		o.leave(cause(err), r.ID) // it may have been stored
		return nil, notYet(ctx, err)
	}
	if !fresh {
		if !found.same(r) {
			return nil, status.Error(codes.FailedPrecondition, "the key was used for another order")
		}
		o.metrics.suppress("journal")
	}
	found, err = o.advance(ctx, found)
	if err != nil {
		o.leave(cause(err), r.ID) // the shopper may never come back
		return nil, notYet(ctx, err)
	}
	return found.proto(), nil
}

// GetOrder implements ordersproto.OrderServiceServer.
func (o *orders) GetOrder(ctx context.Context, in *ordersproto.GetOrderRequest) (*ordersproto.Order, error) {
	r, err := o.journal.get(ctx, orderID(in.GetUserId(), in.GetIdempotencyKey()))
	if errors.Is(err, errNoOrder) {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return nil, notYet(ctx, err)
	}
	return r.proto(), nil
}

// advance carries an order to its end, or returns it as it is with the reason why it cannot go on now. Any number of
// callers may advance one order at the same time, in this process and in others.
func (o *orders) advance(ctx context.Context, r record) (record, error) {
	for {
		var err error
		switch r.State {
		case placed:
			r, err = o.charge(ctx, r)
		case charged:
			r, err = o.publish(ctx, r)
		case published, declined:
			return r, nil
		default:
			return r, fmt.Errorf("order %s is in the unknown state %q", r.ID, r.State)
		}
		if err != nil {
			return r, err
		}
	}
}

// charge asks payments. An error means that nobody knows what became of it: the order stays placed and payments is
// asked again, with the same key, until it is known. Only payments' own word makes it declined.
func (o *orders) charge(ctx context.Context, r record) (record, error) {
	paid, err := o.payments.charge(ctx, charge{Order: r.ID, Card: r.Card, Cents: cents(r.Items)})
	switch {
	case err != nil:
		return r, fmt.Errorf("charging order %s: %w", r.ID, err)
	case !paid:
		return o.journal.move(ctx, r, declined, "the card was declined")
	}
	return o.journal.move(ctx, r, charged, "")
}

// publish returns with the broker's confirmation or with an error; then the order stays charged and is published again.
func (o *orders) publish(ctx context.Context, r record) (record, error) {
	e := OrderCreated{OrderID: r.ID, UserID: r.User, Email: r.Email, Items: r.Items, Cents: cents(r.Items)}
	if err := orderCreated.Publish(ctx, o.events, e); err != nil {
		return r, fmt.Errorf("publishing order %s: %w", r.ID, err)
	}
	return o.journal.move(ctx, r, published, "")
}

// resume finishes what a former process of this service left unfinished, and what calls of this one leave. It returns
// when ctx ends.
func (o *orders) resume(ctx context.Context) {
	if o.resumes <= 0 {
		return
	}
	tick := time.NewTicker(o.resumes)
	defer tick.Stop()
	for searched := false; ; {
		if !searched {
			ids, err := o.journal.unfinished(ctx)
			searched = err == nil
			o.leave("restart", ids...)
		}
		o.finishLeft(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// finishLeft tries each order that is left, some at a time.
func (o *orders) finishLeft(ctx context.Context) {
	o.mu.Lock()
	left := o.left
	o.left = map[string]string{}
	o.mu.Unlock()

	places := make(chan struct{}, 8)
	var work sync.WaitGroup
	for id, why := range left {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			r, err := o.journal.get(ctx, id)
			if err == nil && !r.State.final() {
				o.metrics.countRetry("resumption", why)
				_, err = o.advance(ctx, r)
			}
			if err != nil && !errors.Is(err, errNoOrder) {
				o.log.DebugContext(ctx, "order not finished yet", "order", id, "error", err)
				o.leave(cause(err), id)
			}
		})
	}
	work.Wait()
}

func (o *orders) leave(why string, ids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		o.left[id] = why
	}
}

// notYet is the answer while an order is neither published nor declined: come back with the same key. Its text tells no
// detail of the systems behind. What could be tried again at once was tried here, and the rest is resumed here: the caller
// is asked not to repeat it, and hears so that it is not this service that is ill, whose breaker it would open.
func notYet(ctx context.Context, err error) error {
	grpcclient.NoRetry(ctx)
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codes.Unavailable, "the order is not finished yet; ask again with the same key")
}

func newRecord(in *ordersproto.CreateOrderRequest) (record, error) {
	if in.GetUserId() == "" || in.GetIdempotencyKey() == "" || in.GetCard() == "" || len(in.GetItems()) == 0 {
		return record{}, errors.New("user_id, idempotency_key, card and items are required")
	}
	r := record{ID: orderID(in.GetUserId(), in.GetIdempotencyKey()), User: in.GetUserId(), Card: in.GetCard(), Email: in.GetEmail()}
	for _, i := range in.GetItems() {
		// A real shop takes the price from its catalogue.
		if i.GetSku() == "" || i.GetQuantity() < 1 || i.GetQuantity() > 1000 || i.GetUnitCents() < 0 || i.GetUnitCents() > 1e9 {
			return record{}, errors.New("an item needs a sku, a quantity of 1 to 1000 and a price")
		}
		r.Items = append(r.Items, item{SKU: i.GetSku(), Quantity: i.GetQuantity(), UnitCents: i.GetUnitCents()})
	}
	return r, nil
}

// same reports whether two records are of the same order, as ordered.
func (r record) same(s record) bool {
	return r.ID == s.ID && r.Card == s.Card && r.Email == s.Email && slices.Equal(r.Items, s.Items)
}

func (r record) proto() *ordersproto.Order {
	states := map[state]ordersproto.State{
		placed:    ordersproto.State_STATE_PLACED,
		charged:   ordersproto.State_STATE_CHARGED,
		published: ordersproto.State_STATE_PUBLISHED,
		declined:  ordersproto.State_STATE_DECLINED,
	}
	p := &ordersproto.Order{OrderId: r.ID, State: states[r.State], TotalCents: cents(r.Items), Reason: r.Reason}
	for _, i := range r.Items {
		p.Items = append(p.Items, &ordersproto.Item{Sku: i.SKU, Quantity: i.Quantity, UnitCents: i.UnitCents})
	}
	return p
}

// A paymentsClient speaks to payments. Its http client retries, because the key makes a charge safe to repeat.
type paymentsClient struct {
	http *http.Client
	url  string
}

// charge reports whether the money was taken. An error means that it is not known.
func (p *paymentsClient) charge(ctx context.Context, c charge) (paid bool, err error) {
	status, err := post(ctx, p.http, p.url+"/charges", c.Order, c)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusCreated:
		return true, nil
	case status == http.StatusPaymentRequired:
		return false, nil
	}
	return false, &client.StatusError{Status: status}
}

// post sends v as JSON under an idempotency key, and returns the status of the answer.
func post(ctx context.Context, c *http.Client, url, key string, v any) (int, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	answer, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)) // so that the connection is used again
	return answer.StatusCode, nil
}
