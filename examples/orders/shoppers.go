package main

// Who orders, and comes back with the same key until there is an answer.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// shoppers are people with browsers: they place orders at a rate of their own, whatever the shop does. One who gets no
// definite answer comes back with the same key, or looks what became of the order.
type shoppers struct {
	url      string
	orders   int
	rate     float64 // orders per second
	seed     uint64
	patience time.Duration // after which a shopper is undecided
	declined map[int]bool
	twice    func(order string) bool // this one clicks twice
	ledger   *ledger

	began, decided atomic.Int64
}

// A purchase is what one shopper wants.
type purchase struct {
	user, key string
	looks     bool // goes to "my orders" instead of ordering again
	request   orderRequest
}

// purchaseOf is the same for the same seed.
func purchaseOf(seed uint64, ordinal int, decline bool) purchase {
	rng := rand.New(rand.NewPCG(seed, uint64(ordinal)<<8))
	p := purchase{
		user:  fmt.Sprintf("user-%03d", rng.IntN(200)),
		key:   fmt.Sprintf("order-%d-%06d", seed, ordinal),
		looks: rng.IntN(3) == 0,
	}
	p.request = orderRequest{Card: fmt.Sprintf("card-%06d", ordinal), Email: p.user + "@example.com"}
	if decline {
		p.request.Card = declinedCard + p.request.Card
	}
	for range 1 + rng.IntN(3) {
		p.request.Items = append(p.request.Items, item{
			SKU: fmt.Sprintf("sku-%02d", rng.IntN(50)), Quantity: 1 + rng.Int32N(4), UnitCents: 100 + rng.Int64N(9900),
		})
	}
	return p
}

// run places the orders and returns when every shopper has a definite answer or has lost patience. When ctx ends no new
// order is placed; the ones under way go on.
func (s *shoppers) run(ctx context.Context) {
	// Each shopper has a browser, and so a connection, of their own.
	browser := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	var all sync.WaitGroup
	defer all.Wait()
	start := time.Now()
	for i := range s.orders {
		at := start.Add(time.Duration(float64(i) / s.rate * float64(time.Second)))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(at)):
		}
		all.Go(func() { s.buy(context.WithoutCancel(ctx), browser, purchaseOf(s.seed, i, s.declined[i])) })
	}
}

func (s *shoppers) buy(ctx context.Context, browser *http.Client, p purchase) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	start := time.Now()
	s.note(line{Event: ordered, Key: p.key, Cents: cents(p.request.Items), Items: p.request.Items, To: p.request.Email})
	s.began.Add(1)

	var second sync.WaitGroup
	defer second.Wait()
	if s.twice(orderID(p.user, p.key)) {
		second.Go(func() {
			if a := s.place(ctx, browser, p, clicked); a.State.final() {
				s.hear(p, a, time.Since(start)) // it had better be what the first click is told
			}
		})
	}
	ask := s.order
	for {
		a := ask(ctx, browser, p)
		if a.State.final() {
			s.hear(p, a, time.Since(start))
			s.decided.Add(1)
			return
		}
		switch {
		case a.status == http.StatusServiceUnavailable && p.looks:
			ask = s.look
		case a.status != http.StatusOK: // also 404 of a look: the order never arrived
			ask = s.order
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.wait):
		}
	}
}

// hear notes that the shopper was told something definite.
func (s *shoppers) hear(p purchase, a outcome, took time.Duration) {
	l := line{Event: accepted, Key: p.key, Order: a.OrderID, Millis: float64(took) / float64(time.Millisecond)}
	if a.State == declined {
		l.Event = rejected
	}
	s.note(l)
}

// An outcome is what a shopper saw; status is 0 when no answer came.
type outcome struct {
	orderAnswer
	status int
	wait   time.Duration
}

// order places the order. Again and again with the same key: it is one order.
func (s *shoppers) order(ctx context.Context, browser *http.Client, p purchase) outcome {
	return s.place(ctx, browser, p, called)
}

func (s *shoppers) place(ctx context.Context, browser *http.Client, p purchase, e event) outcome {
	body, err := json.Marshal(p.request)
	if err != nil {
		panic(err) // plain data
	}
	o := s.ask(ctx, browser, http.MethodPost, "/api/orders", p, body)
	s.note(line{Event: e, Key: p.key, Order: o.OrderID, Status: o.status})
	return o
}

// look asks what became of the order.
func (s *shoppers) look(ctx context.Context, browser *http.Client, p purchase) outcome {
	o := s.ask(ctx, browser, http.MethodGet, "/api/orders/"+p.key, p, nil)
	s.note(line{Event: looked, Key: p.key, Order: o.OrderID, Status: o.status})
	return o
}

func (s *shoppers) ask(ctx context.Context, browser *http.Client, method, path string, p purchase, body []byte) outcome {
	o := outcome{wait: 200 * time.Millisecond}
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return o
	}
	r.Header.Set("User-Id", p.user)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", p.key)
	}
	answer, err := browser.Do(r)
	if err != nil {
		return o
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err != nil {
		return o
	}
	o.status = answer.StatusCode
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
		o.wait = time.Duration(seconds) * time.Second
	}
	if o.status < 300 || o.status == http.StatusPaymentRequired {
		_ = json.Unmarshal(b, &o.orderAnswer) // what is not an order decides nothing
	}
	return o
}

func (s *shoppers) note(l line) { _ = s.ledger.write(l) } // a missing line makes the report fail
