package main

// The process of the orders service, as it is started, killed and started again.

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

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
	if s.process, err = s.startOrders(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	s.onClose(func() error { return s.process.shutdown() }) // of the one that is running then
	s.faults.restart.orders = func(down time.Duration) error { return s.restartOrders(context.WithoutCancel(ctx), down) }
	return nil
}

// restartOrders kills the process, and starts it again until it stays up, as an orchestrator does.
func (s *shop) restartOrders(ctx context.Context, down time.Duration) error {
	s.process.kill()
	for deadline := time.Now().Add(down + 10*time.Second); ; {
		time.Sleep(down)
		p, err := s.startOrders(ctx, s.process.address)
		switch {
		case err == nil:
			s.process = p
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("restarting orders: %w", err)
		}
	}
}

// startOrders is what the main function of the orders service would do.
func (s *shop) startOrders(ctx context.Context, address string) (p *ordersProcess, err error) {
	p = &ordersProcess{done: make(chan struct{})}
	if p.nc, err = s.connect("orders"); err != nil {
		return nil, err
	}
	if p.orders, err = s.wiring.orders(ctx, p.nc); err != nil {
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
