package main

// The whole shop in one process: what is started, and in which order.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// shop puts all parts into one process, starts them and stops them. In a company each of them is a process of its own,
// and is wired in the same way.
type shop struct {
	config
	dir     string // ledgers and the broker's store
	metrics *metrics
	faults  *faults
	wiring  *wiring

	broker    broker
	operator  jetstream.JetStream // the connection of those who look after the broker
	process   *ordersProcess
	workers   []*worker // analytics too
	analytics *worker
	shoppers  *shoppers

	closers []func() error // of what was started, in that order

	mu    sync.Mutex
	conns []*nats.Conn
}

// openShop starts everything but the shoppers. What it started it stops if it cannot start the rest.
func openShop(ctx context.Context, c config) (s *shop, err error) {
	s = &shop{config: c, metrics: newMetrics(c.log)}
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

// openFaults prepares what will go wrong, and the shoppers, some of whom are part of it.
func (s *shop) openFaults(context.Context) error {
	l, err := openLedger(s.dir, shoppersLedger)
	if err != nil {
		return err
	}
	s.onClose(l.close)
	plan := schedule(s.seed, s.orders, s.config.faults)
	id := func(i int) string {
		p := purchaseOf(s.seed, i, false)
		return orderID(p.user, p.key)
	}
	s.faults = newFaults(plan, id, s.pace, s.log)
	s.wiring = &wiring{
		prefix:  fmt.Sprintf("shop-%08x", rand.Uint32()),
		pace:    s.pace,
		metrics: s.metrics,
		log:     s.log,
		demo:    demo{without: s.without, faults: s.faults},
	}
	s.shoppers = &shoppers{
		orders: s.orders, rate: s.rate, seed: s.seed, patience: s.pace.patience,
		declined: declines(s.seed, s.orders, plan),
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
	s.onClose(s.faults.close)
	s.faults.restart.nats = s.broker.Down

	nc, err := s.connect("operator")
	if err != nil {
		return err
	}
	if s.operator, err = jetstream.New(nc); err != nil {
		return err
	}
	if _, err := s.operator.AccountInfo(ctx); err != nil {
		return fmt.Errorf("the NATS server has no JetStream for us: %w", err)
	}
	if s.natsURL != "" {
		ctx := context.WithoutCancel(ctx)
		s.onClose(func() error { return cleanUp(ctx, s.operator, s.wiring.prefix) })
	}
	return s.wiring.provision(ctx, nc)
}

// connect returns a connection for one part of the shop.
func (s *shop) connect(name string) (*nats.Conn, error) {
	nc, err := s.wiring.connect(s.broker.URL(), name)
	if err != nil {
		return nil, err
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

// openParties starts the systems of other people.
func (s *shop) openParties(ctx context.Context) error {
	for _, p := range []struct {
		ledger  string
		url     *string
		handler func(*party) http.Handler
	}{
		{paymentsLedger, &s.wiring.urls.payments, func(p *party) http.Handler { return s.wiring.demo.payments(payments(p)) }},
		{mailLedger, &s.wiring.urls.mail, mailGateway},
		{stockLedger, &s.wiring.urls.stock, stock},
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

// openWorkers starts everybody who works from the events.
func (s *shop) openWorkers(ctx context.Context) error {
	l, err := openLedger(s.dir, analyticsLedger)
	if err != nil {
		return err
	}
	s.onClose(l.close)
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
		open func(*nats.Conn) (*worker, error)
	}{
		{"email-1", s.wiring.emailWorker},
		{"email-2", s.wiring.emailWorker},
		{"inventory", s.wiring.inventoryWorker},
		{"analytics", func(nc *nats.Conn) (_ *worker, err error) {
			s.analytics, err = s.wiring.analytics(nc, l)
			return s.analytics, err
		}},
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
		running.Go(func() { errs <- w.run(ctx) })
	}
	for _, w := range s.workers {
		select {
		case <-w.consumer.Ready():
		case <-time.After(10 * time.Second):
			return errors.New("a worker was not ready after 10 s")
		}
	}
	return nil
}

func (s *shop) openStorefront(ctx context.Context) error {
	conn, err := s.wiring.ordersConn(s.process.address)
	if err != nil {
		return err
	}
	s.onClose(conn.Close)
	nc, err := s.connect("storefront")
	if err != nil {
		return err
	}
	h, err := s.wiring.storefront(nc, conn)
	if err != nil {
		return err
	}
	server, err := serve(ctx, h, s.log)
	if err != nil {
		return err
	}
	s.onClose(server.close)
	s.shoppers.url = server.url
	return nil
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

// behind asks how much the groups and the reader have still to do. Of a reader the broker knows only what it has sent to
// it; whether that was handled the reader knows.
func (s *shop) behind(ctx context.Context) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, w := range s.workers {
		lag, err := w.consumer.Lag(ctx)
		if err != nil {
			return n, err
		}
		n += lag.Messages + lag.Unacked
	}
	stored, err := s.stored(ctx)
	return n + max(0, stored-s.analytics.consumer.Stats().Handled), err
}

// stored returns how many events the broker keeps. It has kept all of this run.
func (s *shop) stored(ctx context.Context) (int64, error) {
	name, err := s.operator.StreamNameBySubject(ctx, s.wiring.prefix+"."+orderCreated.Name)
	if err != nil {
		return 0, err
	}
	stream, err := s.operator.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	return int64(stream.CachedInfo().State.Msgs), nil
}

// compare reads the ledgers and adds the counters.
func (s *shop) compare(ctx context.Context) (*report, error) {
	r, err := compare(s.dir)
	if err != nil {
		return nil, err
	}
	r.explain(s.metrics)
	r.Faults = s.faults.counts()
	for _, w := range s.workers {
		stats := w.consumer.Stats()
		r.Redelivered += stats.Redelivered
		r.DeadLettered += stats.Dead
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stored, err := s.stored(ctx)
	if twice := s.faults.confirmed() - stored; twice > 0 && err == nil {
		r.suppress("broker", int(twice))
	}
	return r, err
}
