package main

// What a run is told, and the pace of the show.

import (
	"fmt"
	"log/slog"
	"time"
)

// config is one run.
type config struct {
	orders  int
	rate    float64 // orders per second
	seed    uint64
	faults  []kind
	natsURL string // empty: an embedded server
	without []protection
	pace    pace
	log     *slog.Logger
}

func (c config) validate() error {
	switch {
	case c.orders < 1:
		return fmt.Errorf("-orders %d: there must be at least one", c.orders)
	case len(c.faults) > 0 && c.orders < faultsNeed:
		return fmt.Errorf("-orders %d is too few for faults, which need at least %d; or switch them off with -faults none", c.orders, faultsNeed)
	case !(c.rate > 0 && c.rate <= 10_000):
		return fmt.Errorf("-rate %v: want more than 0 and at most 10000 orders a second", c.rate)
	}
	return nil
}

// pace holds what a show of some seconds must have shorter than a service: with the defaults of the library, one breaker
// opening (5 s), one lost acknowledgement (a lease of 30 s) or one retry of a worker (from 1 s) would be most of it. The
// values are otherwise what they would be: every wait still doubles, is jittered and is bounded.
type pace struct {
	attemptTimeout time.Duration // of one attempt at payments; the library's default is 3 s
	lease          time.Duration // of a message and of a claim; 30 s
	breakerOpen    time.Duration // the first time; 5 s
	workerRetry    time.Duration // the first wait of a worker; 1 s
	resumes        time.Duration // how often unfinished orders are taken up again
	reconnect      time.Duration // how long a broken connection waits before it is made again
	budgetWindow   time.Duration // over which retries are compared with first attempts; 10 s

	paymentsOverload, paymentsDown, ordersDown, natsDown time.Duration // the outages

	patience time.Duration // of a shopper
	settle   time.Duration // how long the queues may take to become empty afterwards
}

func showPace() pace {
	return pace{
		attemptTimeout:   400 * time.Millisecond,
		lease:            2 * time.Second,
		breakerOpen:      300 * time.Millisecond,
		workerRetry:      100 * time.Millisecond,
		resumes:          250 * time.Millisecond,
		reconnect:        100 * time.Millisecond,
		budgetWindow:     time.Second,
		paymentsOverload: time.Second,
		paymentsDown:     1200 * time.Millisecond,
		ordersDown:       400 * time.Millisecond,
		natsDown:         700 * time.Millisecond,
		patience:         30 * time.Second,
		settle:           20 * time.Second,
	}
}
