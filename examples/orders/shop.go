package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// shop puts all parts into one process. In a company each of them is a process of its own, and is wired in the same way.
type shop struct {
	config
	dir     string // ledgers and the broker's store
	prefix  string // of everything this run makes at the broker
	metrics *metrics
	faults  *faults

	broker   broker
	operator jetstream.JetStream
	urls     struct{ payments, mail, stock string }
	orders   *ordersProcess
	workers  []*messaging.Consumer
	shoppers *shoppers

	closers []func() error // of what was started, in that order

	mu    sync.Mutex
	conns []*nats.Conn
}

// openShop starts everything but the shoppers. What it started it stops if it cannot start the rest.
func openShop(ctx context.Context, c config) (s *shop, err error) {
	s = &shop{config: c, metrics: newMetrics(c.log), prefix: fmt.Sprintf("shop-%08x", rand.Uint32())}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	for _, start := range []func(context.Context) error{
		s.openDir, s.openFaults, s.openBroker, s.openParties, s.openOrders, s.openWorkers, s.openStorefront,
	} {
		if err := start(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// close stops everything, the last started first.
func (s *shop) close() error {
	var faults []error
	for len(s.closers) > 0 {
		last := len(s.closers) - 1
		faults = append(faults, s.closers[last]())
		s.closers = s.closers[:last]
	}
	return errors.Join(faults...)
}

func (s *shop) onClose(f func() error) { s.closers = append(s.closers, f) }

func (s *shop) openDir(context.Context) (err error) {
	s.dir, err = os.MkdirTemp("", "tandem-orders-")
	s.onClose(func() error { return os.RemoveAll(s.dir) })
	return err
}

func (s *shop) openFaults(context.Context) error {
	l, err := openLedger(s.dir, shoppersLedger)
	if err != nil {
		return err
	}
	s.onClose(l.close)
	plan := schedule(s.seed, s.config.orders, s.config.faults)
	id := func(i int) string {
		p := purchaseOf(s.seed, i, false)
		return orderID(p.user, p.key)
	}
	s.faults = newFaults(plan, id, s.pace, s.log)
	s.shoppers = &shoppers{
		orders: s.config.orders, rate: s.rate, seed: s.seed, patience: s.pace.patience,
		declined: declines(s.seed, s.config.orders, plan),
		twice:    func(order string) bool { return s.faults.take(sameMoment, order) },
		ledger:   l,
	}
	return nil
}

func (s *shop) openBroker(ctx context.Context) (err error) {
	if s.natsURL == "" {
		s.broker, err = startEmbedded(filepath.Join(s.dir, "nats"))
	} else {
		s.broker, err = startProxied(ctx, s.natsURL)
	}
	if err != nil {
		return err
	}
	s.onClose(func() error { s.broker.Close(); return nil })
	s.onClose(s.disconnect)
	s.onClose(s.faults.close) // before all others: what is away has to be back
	s.faults.restart.nats = s.broker.Down

	nc, err := s.connect("operator")
	if err != nil {
		return err
	}
	if s.operator, err = jetstream.New(nc); err != nil {
		return err
	}
	if s.natsURL != "" {
		ctx := context.WithoutCancel(ctx)
		s.onClose(func() error { return cleanUp(ctx, s.operator, s.prefix) })
	}
	return s.provision(ctx, nc)
}

// provision declares what is kept at the broker: the topic, the journal and the claims. It belongs to a deployment.
func (s *shop) provision(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := s.bus(nc)
	if err != nil {
		return err
	}
	if err := b.Provision(ctx, messaging.TopicSpec{Name: orderCreated.Name}); err != nil {
		return err
	}
	claims, err := s.claims(nc)
	if err != nil {
		return err
	}
	if err := claims.Provision(ctx); err != nil {
		return err
	}
	_, err = s.operator.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: s.prefix + "-journal", Storage: jetstream.FileStorage})
	return err
}

// connect returns a connection for one part of the shop.
func (s *shop) connect(name string) (*nats.Conn, error) {
	nc, err := connect(s.broker.URL(), name, s.pace.reconnect, s.log)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, nc)
	return nc, nil
}

func (s *shop) disconnect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nc := range s.conns {
		nc.Close()
	}
	return nil
}

func (s *shop) bus(nc *nats.Conn) (*natsbus.Bus, error) {
	return natsbus.New(nc, natsbus.Config{Prefix: s.prefix})
}

// claims is where the storefront and the workers remember what was done.
func (s *shop) claims(nc *nats.Conn) (*natsstore.Store, error) {
	return natsstore.New(nc, s.prefix+"-claims", natsstore.Config{})
}

// The four policies, shared by every call over every transport.

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
	return nil
}

// ordersProcess stands for the process that the orders service is: it has an address, and can be killed.
type ordersProcess struct {
	orders  *orders
	address string
	cancel  context.CancelFunc
	nc      *nats.Conn
	done    chan struct{} // closed when run has returned
	err     error         // then
}

func (s *shop) openOrders(ctx context.Context) (err error) {
	if s.orders, err = s.startOrders(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	s.onClose(func() error {
		if s.orders == nil {
			return nil // a restart that failed; the faults know
		}
		return s.orders.shutdown()
	})
	s.faults.restart.orders = func(down time.Duration) error { return s.restartOrders(context.WithoutCancel(ctx), down) }
	return nil
}

// restartOrders kills the process, and starts it again until it stays up, as an orchestrator does.
func (s *shop) restartOrders(ctx context.Context, down time.Duration) (err error) {
	address := s.orders.address
	s.orders.kill()
	for deadline := time.Now().Add(down + 10*time.Second); ; {
		time.Sleep(down)
		if s.orders, err = s.startOrders(ctx, address); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// startOrders is what the main function of the orders service would do.
func (s *shop) startOrders(ctx context.Context, address string) (p *ordersProcess, err error) {
	p = &ordersProcess{done: make(chan struct{})}
	if p.nc, err = s.connect("orders"); err != nil {
		return nil, err
	}
	if p.orders, err = s.newOrders(ctx, p.nc); err != nil {
		p.nc.Close()
		return nil, err
	}
	l, err := listen(ctx, address)
	if err != nil {
		p.nc.Close()
		return nil, err
	}
	p.address = l.Addr().String()
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx)) // its life is not that of the one who starts it
	go func() {
		defer close(p.done)
		p.err = p.orders.run(ctx, l)
	}()
	return p, nil
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

// paymentsClient has a budget of its own over a shorter window, so that the outage of a second is seen in it.
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

// kill ends the process as a crash does: calls are cut, connections close, nothing is said to anybody.
func (p *ordersProcess) kill() {
	p.orders.stop()
	p.nc.Close()
	p.cancel()
	<-p.done
	p.orders.payments.http.CloseIdleConnections()
}

func (p *ordersProcess) shutdown() error {
	p.cancel()
	<-p.done
	p.nc.Close()
	p.orders.payments.http.CloseIdleConnections()
	return p.err
}

// listen waits for an address that may be taken for a moment by an outgoing connection of this very process.
func listen(ctx context.Context, address string) (net.Listener, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return l, err
		}
	}
}

func (s *shop) openWorkers(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	errs := make(chan error, 8)
	s.onClose(func() error {
		cancel(nil)
		running.Wait()
		close(errs)
		var faults []error
		for err := range errs {
			faults = append(faults, err)
		}
		return errors.Join(faults...)
	})
	for _, open := range []func(*nats.Conn) (*messaging.Consumer, error){s.emailWorker, s.emailWorker, s.inventoryWorker, s.analyticsReader} {
		nc, err := s.connect("worker")
		if err != nil {
			return err
		}
		w, err := open(nc)
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
	l, err := openLedger(s.dir, analyticsLedger)
	if err != nil {
		return nil, err
	}
	s.onClose(l.close)
	a := &analytics{ledger: l, seen: map[string]bool{}}
	return a.consumer(b, workerConfig{metrics: s.metrics, log: s.log.With("part", "analytics")})
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
	conn, err := grpc.NewClient(s.orders.address, append(options,
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

// settle waits until what was taken away is back and the queues are empty.
func (s *shop) settle(ctx context.Context) error {
	if err := s.faults.close(); err != nil {
		return err
	}
	for deadline := time.Now().Add(s.pace.settle); ; time.Sleep(50 * time.Millisecond) {
		behind, err := s.behind(ctx)
		if err == nil && behind == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%d events not handled after %v", behind, s.pace.settle), err)
		}
	}
}

// behind asks the broker how much the groups and the reader have still to do.
func (s *shop) behind(ctx context.Context) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, w := range s.workers {
		lag, err := w.Lag(ctx)
		if err != nil {
			return n, err
		}
		n += lag.Messages + lag.Unacked
	}
	return n, nil
}

// compare reads the ledgers and adds the counters.
func (s *shop) compare() (*report, error) {
	r, err := compare(s.dir)
	if err != nil {
		return nil, err
	}
	r.explain(s.metrics)
	r.Faults = s.faults.counts()
	for _, w := range s.workers {
		stats := w.Stats()
		r.Redelivered += stats.Redelivered
		r.DeadLettered += stats.Dead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nc := range s.conns {
		r.Reconnects += nc.Stats().Reconnects
	}
	return r, nil
}
