package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
)

// shop puts all parts into one process. In a company each of them is a process of its own, and is wired in the same way.
type shop struct {
	config
	dir     string // ledgers and the broker's store
	prefix  string // of everything this run makes at the broker
	metrics *metrics
	faults  *faults

	broker    broker
	operator  jetstream.JetStream // the connection of those who look after the broker
	urls      struct{ payments, mail, stock string }
	process   *ordersProcess
	analytics *analytics
	workers   []*messaging.Consumer
	shoppers  *shoppers

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
	plan := schedule(s.seed, s.orders, s.config.faults)
	id := func(i int) string {
		p := purchaseOf(s.seed, i, false)
		return orderID(p.user, p.key)
	}
	s.faults = newFaults(plan, id, s.pace, s.log)
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
	nc, err := connect(s.broker.URL(), name, s.pace.reconnect, s.metrics)
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
	return r, nil
}
