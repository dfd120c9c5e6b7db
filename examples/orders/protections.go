package main

// What an order is protected by, and how to take it away.

import (
	"context"
	"crypto/rand"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/messaging"
)

// A protection is something that keeps an order from being lost, doubled or late. Each can be taken away alone, to see in
// the report what it was for: by another value of a configuration (demo.go), or by one of the wrappers below.
type protection string

const (
	paymentKey          protection = "payment-key"          // payments is not told the operation's key
	orderKey            protection = "order-key"            // the order's id is random, not derived from the shopper's key
	consumerDedupe      protection = "consumer-dedupe"      // neither of the next two
	consumerStore       protection = "consumer-store"       // workers do not remember what they have handled
	consumerKey         protection = "consumer-key"         // mail gateway and stock are not told the operation's key
	publishConfirmation protection = "publish-confirmation" // an event handed to the connection counts as published
	journalResumption   protection = "journal-resumption"   // nobody takes up what was left unfinished
	answerGuard         protection = "answer-guard"         // the storefront does not remember its answers
	retries             protection = "retry"
	breakers            protection = "breaker"
	budget              protection = "budget"
	attemptTimeout      protection = "attempt-timeout"
)

var allProtections = []protection{
	paymentKey, orderKey, consumerDedupe, consumerStore, consumerKey, publishConfirmation, journalResumption, answerGuard,
	retries, breakers, budget, attemptTimeout,
}

// keyless removes the key of the operation on its way to a party.
type keyless struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (k keyless) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Idempotency-Key")
	return k.next.RoundTrip(r)
}

// CloseIdleConnections passes on what http.Client asks.
func (k keyless) CloseIdleConnections() { (&http.Client{Transport: k.next}).CloseIdleConnections() }

// randomIDs gives each call a key of its own, so that the orders service cannot see which calls are the same order.
type randomIDs struct {
	ordersproto.OrderServiceClient
	known func(order, other string)
}

// CreateOrder implements ordersproto.OrderServiceClient.
func (r randomIDs) CreateOrder(ctx context.Context, in *ordersproto.CreateOrderRequest, o ...grpc.CallOption) (*ordersproto.Order, error) {
	random := proto.CloneOf(in)
	random.IdempotencyKey = rand.Text()
	r.known(orderID(in.GetUserId(), in.GetIdempotencyKey()), orderID(in.GetUserId(), random.GetIdempotencyKey()))
	return r.OrderServiceClient.CreateOrder(ctx, random, o...)
}

// unconfirmed calls everything sent, whatever became of it.
type unconfirmed struct{ messaging.Sender }

// Send implements messaging.Sender.
func (u unconfirmed) Send(ctx context.Context, m []*messaging.Message) error {
	_ = u.Sender.Send(ctx, m)
	return nil
}

// forgetful is a store that has never seen a key.
type forgetful struct{ idempotency.Store }

// Begin implements idempotency.Store.
func (forgetful) Begin(_ context.Context, k idempotency.Key, _ idempotency.BeginOptions) (idempotency.Claim, error) {
	return idempotency.Claim{Status: idempotency.Owned, Ticket: idempotency.Ticket{Key: k, Attempt: 1, Fence: 1}}, nil
}

// Extend implements idempotency.Store.
func (forgetful) Extend(_ context.Context, t idempotency.Ticket, _ time.Duration) (idempotency.Ticket, error) {
	return t, nil
}

// Complete implements idempotency.Store.
func (forgetful) Complete(context.Context, idempotency.Ticket, idempotency.Result, time.Duration) error {
	return nil
}

// Release implements idempotency.Store.
func (forgetful) Release(context.Context, idempotency.Ticket) error { return nil }
