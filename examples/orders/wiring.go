package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/httpguard"
	"github.com/tandemgo/tandem/idempotency/natsstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
	"github.com/tandemgo/tandem/retry"
)

func (s *shop) bus(nc *nats.Conn) (*natsbus.Bus, error) {
	return natsbus.New(nc, natsbus.Config{Prefix: s.prefix})
}

// claims is where the storefront and the workers remember what was done.
func (s *shop) claims(nc *nats.Conn) (*natsstore.Store, error) {
	return natsstore.New(nc, s.prefix+"-claims", natsstore.Config{})
}

// The policies are the same for every call over every transport: a timeout for the call, one for an attempt, retries
// within a budget, and breakers.

func (s *shop) retryPolicy(place string) retry.Policy {
	p := retry.Policy{OnRetry: s.metrics.retried(place), OnGiveUp: s.metrics.gaveUp}
	if s.lacks(retries) {
		p.MaxAttempts = 1
	}
	if s.lacks(budget) {
		p.Budget = retry.Unlimited
	}
	return p
}

func (s *shop) breakers() (*breaker.Group, error) {
	if s.lacks(breakers) {
		return breaker.Off(), nil
	}
	return breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{
		OpenFor: s.pace.breakerOpen, MaxOpenFor: 2 * s.pace.breakerOpen, OnStateChange: s.metrics.stateChanged,
	}})
}

func (s *shop) attempt(d time.Duration) time.Duration {
	if s.lacks(attemptTimeout) {
		return client.NoTimeout
	}
	return d
}

// httpClient returns the client that one part uses to call one party outside.
func (s *shop) httpClient(place string, p retry.Policy, lacksKey bool) (*http.Client, error) {
	guards, err := s.breakers()
	if err != nil {
		return nil, err
	}
	c := client.Config{
		AttemptTimeout: s.attempt(s.pace.attemptTimeout),
		Retry:          p,
		Breakers:       guards,
		Headers:        client.HeadersNone, // a partner outside
		Log:            s.log.With("client", place),
	}
	if lacksKey {
		c.Base = keyless{http.DefaultTransport.(*http.Transport).Clone()}
	}
	return client.New(c)
}

func (s *shop) openParties(ctx context.Context) error {
	for _, p := range []struct {
		ledger  string
		url     *string
		handler func(*party) http.Handler
	}{
		{paymentsLedger, &s.urls.payments, func(p *party) http.Handler { return s.faults.payments(payments(p)) }},
		{mailLedger, &s.urls.mail, mailGateway},
		{stockLedger, &s.urls.stock, stock},
	} {
		party, err := openParty(s.dir, p.ledger)
		if err != nil {
			return err
		}
		s.onClose(party.ledger.close)
		server, err := serve(ctx, p.handler(party), s.log)
		if err != nil {
			return err
		}
		s.onClose(server.close)
		*p.url = server.url
	}
	l, err := openLedger(s.dir, analyticsLedger)
	if err != nil {
		return err
	}
	s.onClose(l.close)
	s.analytics = &analytics{ledger: l, seen: map[string]bool{}}
	return nil
}

func (s *shop) newOrders(ctx context.Context, nc *nats.Conn) (*orders, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, s.prefix+"-journal")
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	partner, err := s.paymentsClient()
	if err != nil {
		return nil, err
	}
	publisher, err := s.publisher(nc)
	if err != nil {
		return nil, err
	}
	o := &orders{
		journal:  &journal{kv: kv, retry: s.retryPolicy("journal"), try: s.pace.attemptTimeout},
		payments: &paymentsClient{http: partner, url: s.urls.payments},
		events:   publisher,
		resumes:  s.pace.resumes,
		metrics:  s.metrics,
		log:      s.log.With("part", "orders"),
	}
	if s.lacks(journalResumption) {
		o.resumes = 0
	}
	return o, o.open()
}

// paymentsClient has a budget over a shorter window than the default of 10 s, which would hold enough for this whole show.
func (s *shop) paymentsClient() (*http.Client, error) {
	p := s.retryPolicy("payments")
	if p.Budget == nil {
		b, err := retry.NewBudget(retry.BudgetConfig{Window: s.pace.budgetWindow})
		if err != nil {
			return nil, err
		}
		p.Budget = b
	}
	return s.httpClient("payments", p, s.lacks(paymentKey))
}

func (s *shop) publisher(nc *nats.Conn) (*messaging.Publisher, error) {
	b, err := s.bus(nc)
	if err != nil {
		return nil, err
	}
	guards, err := s.breakers()
	if err != nil {
		return nil, err
	}
	var sender messaging.Sender = faultyBus{counted{b, s.metrics}, s.faults}
	if s.lacks(publishConfirmation) {
		sender = unconfirmed{sender}
	}
	return messaging.NewPublisher(sender, messaging.PublisherConfig{
		AttemptTimeout: s.attempt(2 * s.pace.attemptTimeout),
		Retry:          s.retryPolicy("publish"),
		Breakers:       guards,
		Source:         "/orders",
		Log:            s.log.With("part", "orders"),
	})
}

func (s *shop) openWorkers(ctx context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	errs := make(chan error, 8)
	s.onClose(func() error {
		cancel()
		running.Wait()
		close(errs)
		var faults []error
		for err := range errs {
			faults = append(faults, err)
		}
		return errors.Join(faults...)
	})
	for _, one := range []struct {
		name string
		open func(*nats.Conn) (*messaging.Consumer, error)
	}{
		{"email-1", s.emailWorker},
		{"email-2", s.emailWorker},
		{"inventory", s.inventoryWorker},
		{"analytics", s.analyticsReader},
	} {
		nc, err := s.connect(one.name)
		if err != nil {
			return err
		}
		w, err := one.open(nc)
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
		running.Go(func() { errs <- w.Run(ctx) })
	}
	for _, w := range s.workers {
		select {
		case <-w.Ready():
		case <-time.After(10 * time.Second):
			return errors.New("a worker was not ready after 10 s")
		}
	}
	return nil
}

func (s *shop) emailWorker(nc *nats.Conn) (*messaging.Consumer, error) {
	b, gateway, c, err := s.worker(nc, "email")
	if err != nil {
		return nil, err
	}
	return newEmailWorker(b, gateway, s.urls.mail, c)
}

func (s *shop) inventoryWorker(nc *nats.Conn) (*messaging.Consumer, error) {
	b, warehouse, c, err := s.worker(nc, "inventory")
	if err != nil {
		return nil, err
	}
	return newInventoryWorker(b, warehouse, s.urls.stock, c)
}

func (s *shop) analyticsReader(nc *nats.Conn) (*messaging.Consumer, error) {
	b, err := s.bus(nc)
	if err != nil {
		return nil, err
	}
	return s.analytics.consumer(b, workerConfig{metrics: s.metrics, log: s.log.With("part", "analytics")})
}

// worker returns what the workers of a group have in common.
func (s *shop) worker(nc *nats.Conn, group string) (b bus, party *http.Client, c workerConfig, err error) {
	own, err := s.bus(nc)
	if err != nil {
		return nil, nil, c, err
	}
	claims, err := s.claims(nc)
	if err != nil {
		return nil, nil, c, err
	}
	party, err = s.httpClient(group, s.retryPolicy(group), s.lacks(consumerKey) || s.lacks(consumerDedupe))
	if err != nil {
		return nil, nil, c, err
	}
	s.onClose(func() error { party.CloseIdleConnections(); return nil })
	c = workerConfig{
		lease:   s.pace.lease,
		retry:   retry.Policy{BaseDelay: s.pace.workerRetry},
		metrics: s.metrics,
		log:     s.log.With("part", group),
	}
	if !s.lacks(consumerStore) && !s.lacks(consumerDedupe) {
		c.use = append(c.use, once(claims, group, s.metrics, c.log))
	}
	c.use = append(c.use, s.faults.worker)
	return faultyBus{own, s.faults}, party, c, nil
}

func (s *shop) openStorefront(ctx context.Context) error {
	guards, err := s.breakers()
	if err != nil {
		return err
	}
	options, err := grpcclient.DialOptions(grpcclient.Config{
		Timeout:        20 * time.Second,                      // shoppers would rather wait than come back
		AttemptTimeout: s.attempt(10 * s.pace.attemptTimeout), // one attempt here is several at payments
		Retry:          s.retryPolicy("orders"),
		Breakers:       guards,
		Log:            s.log.With("part", "storefront"),
	})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(s.process.address, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{ // grpc's own would wait a second before it looks again
			Backoff:           backoff.Config{BaseDelay: s.pace.reconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	)...)
	if err != nil {
		return err
	}
	s.onClose(conn.Close)

	nc, err := s.connect("storefront")
	if err != nil {
		return err
	}
	answers, err := s.answers(nc)
	if err != nil {
		return err
	}
	orders := ordersproto.NewOrderServiceClient(conn)
	if s.lacks(orderKey) {
		orders = randomIDs{orders, s.faults.knownAs}
	}
	h, err := newStorefront(orders, answers, httpguard.Config{
		Lease: s.pace.lease, OnEvent: s.metrics.decided("storefront"), Log: s.log.With("part", "storefront"),
	})
	if err != nil {
		return err
	}
	server, err := serve(ctx, s.faults.answers(h), s.log)
	if err != nil {
		return err
	}
	s.onClose(server.close)
	s.shoppers.url = server.url
	return nil
}

func (s *shop) answers(nc *nats.Conn) (idempotency.Store, error) {
	claims, err := s.claims(nc)
	if err != nil {
		return nil, err
	}
	if s.lacks(answerGuard) {
		return forgetful{claims}, nil
	}
	return claims, nil
}
