package main

// Where the demonstration meets the shop.

import (
	"net/http"
	"slices"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// demo stands between the shop and what is done to it. Each method takes a part, or the configuration of one, and returns
// it without the protections that this run lacks (protections.go) and with what breaks it from time to time (faults.go).
// The rest of the shop knows of neither.
type demo struct {
	without []protection
	faults  *faults
}

// lacks reports whether any of these protections was taken away.
func (d demo) lacks(any ...protection) bool {
	return slices.ContainsFunc(any, func(p protection) bool { return slices.Contains(d.without, p) })
}

func (d demo) retries(p retry.Policy) retry.Policy {
	if d.lacks(retries) {
		p.MaxAttempts = 1
	}
	if d.lacks(budget) {
		p.Budget = retry.Unlimited
	}
	return p
}

func (d demo) breakers(g *breaker.Group) *breaker.Group {
	if d.lacks(breakers) {
		return breaker.Off()
	}
	return g
}

func (d demo) attempt(t time.Duration) time.Duration {
	if d.lacks(attemptTimeout) {
		return client.NoTimeout
	}
	return t
}

func (d demo) http(place string, c client.Config) client.Config {
	c.AttemptTimeout, c.Retry, c.Breakers = d.attempt(c.AttemptTimeout), d.retries(c.Retry), d.breakers(c.Breakers)
	if place == "payments" && d.lacks(paymentKey) || place != "payments" && d.lacks(consumerKey, consumerDedupe) {
		c.Base = keyless{http.DefaultTransport.(*http.Transport).Clone()}
	}
	return c
}

func (d demo) grpc(c grpcclient.Config) grpcclient.Config {
	c.AttemptTimeout, c.Retry, c.Breakers = d.attempt(c.AttemptTimeout), d.retries(c.Retry), d.breakers(c.Breakers)
	return c
}

func (d demo) publisher(c messaging.PublisherConfig) messaging.PublisherConfig {
	c.AttemptTimeout, c.Retry, c.Breakers = d.attempt(c.AttemptTimeout), d.retries(c.Retry), d.breakers(c.Breakers)
	return c
}

// consumer has its faults innermost: after the duplicate was looked for, and before the work is remembered as done.
func (d demo) consumer(c messaging.ConsumerConfig) messaging.ConsumerConfig {
	c.Use = append(slices.Clone(c.Use), d.faults.worker)
	return c
}

func (d demo) sender(b bus) messaging.Sender {
	if d.lacks(publishConfirmation) {
		return unconfirmed{faultyBus{b, d.faults}}
	}
	return faultyBus{b, d.faults}
}

func (d demo) subscriber(b bus) messaging.Subscriber { return faultyBus{b, d.faults} }

// answers is where the storefront keeps its answers.
func (d demo) answers(s idempotency.Store) idempotency.Store {
	if d.lacks(answerGuard) {
		return forgetful{s}
	}
	return s
}

// handled is where the workers remember what they have handled.
func (d demo) handled(s idempotency.Store) idempotency.Store {
	if d.lacks(consumerStore, consumerDedupe) {
		return forgetful{s}
	}
	return s
}

func (d demo) ordersClient(c ordersproto.OrderServiceClient) ordersproto.OrderServiceClient {
	if d.lacks(orderKey) {
		return randomIDs{c, d.faults.knownAs}
	}
	return c
}

// resumes is how often unfinished orders are taken up again.
func (d demo) resumes(every time.Duration) time.Duration {
	if d.lacks(journalResumption) {
		return 0
	}
	return every
}

func (d demo) storefront(h http.Handler) http.Handler { return d.faults.answers(h) }

func (d demo) payments(h http.Handler) http.Handler { return d.faults.payments(h) }
