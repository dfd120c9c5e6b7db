package main

// The systems of other people: payments, mail gateway, stock.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The parties are other people's systems: they share nothing with the shop but HTTP. Each does what a real one does:
// it applies an effect and remembers the operation's key in one write, and answers a known key without a second effect.

// declinedCard is how the token of a card without cover begins.
const declinedCard = "declined-"

// A party has effects, once per key.
type party struct {
	ledger *ledger

	mu      sync.Mutex
	answers map[string]int // by key
}

func openParty(dir, name string) (*party, error) {
	l, err := openLedger(dir, name)
	if err != nil {
		return nil, err
	}
	return &party{ledger: l, answers: map[string]int{}}, nil
}

// apply answers a call: with status and the effect e, unless the key is known. A call without a key is always a new one.
func (p *party) apply(key string, e line, status int) int {
	e.Key = key
	p.mu.Lock()
	defer p.mu.Unlock()
	known, seen := p.answers[key]
	if seen && key != "" {
		e.Event, e.Known, e.Status = called, true, known
		if p.ledger.write(e) != nil {
			return http.StatusInternalServerError
		}
		return known
	}
	call, effect := e, e
	call.Event, call.Status = called, status
	effect.Event = effected
	lines := []line{call, effect}
	if status >= 400 {
		lines = lines[:1]
	}
	if p.ledger.write(lines...) != nil {
		return http.StatusInternalServerError
	}
	p.answers[key] = status
	return status
}

// A charge is the body of POST /charges.
type charge struct {
	Order string `json:"order"`
	Card  string `json:"card"`
	Cents int64  `json:"cents"`
}

// A mail is the body of POST /mails.
type mail struct {
	Order   string `json:"order"`
	To      string `json:"to"`
	Subject string `json:"subject"`
}

// A move is the body of POST /moves.
type move struct {
	Order string `json:"order"`
	Items []item `json:"items"`
}

// An item is what was ordered, and how much of it.
type item struct {
	SKU       string `json:"sku"`
	Quantity  int32  `json:"quantity"`
	UnitCents int64  `json:"unit_cents"`
}

// payments serves POST /charges: 201, or 402 for a card that is declined.
func payments(p *party) http.Handler {
	return handle("POST /charges", func(key string, c charge) int {
		status := http.StatusCreated
		if strings.HasPrefix(c.Card, declinedCard) {
			status = http.StatusPaymentRequired
		}
		return p.apply(key, line{Order: c.Order, Cents: c.Cents}, status)
	})
}

// mailGateway serves POST /mails.
func mailGateway(p *party) http.Handler {
	return handle("POST /mails", func(key string, m mail) int {
		return p.apply(key, line{Order: m.Order, To: m.To}, http.StatusAccepted)
	})
}

// stock serves POST /moves: the stock goes down by what was ordered.
func stock(p *party) http.Handler {
	return handle("POST /moves", func(key string, m move) int {
		return p.apply(key, line{Order: m.Order, Items: m.Items}, http.StatusOK)
	})
}

func cents(items []item) (n int64) {
	for _, i := range items {
		n += int64(i.Quantity) * i.UnitCents
	}
	return n
}

// handle serves one pattern with a function of the key and the decoded body.
func handle[T any](pattern string, f func(key string, v T) (status int)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var v T
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&v); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(f(r.Header.Get("Idempotency-Key"), v))
	})
	return mux
}

// A server is an HTTP server on a loopback socket.
type server struct {
	url  string
	http *http.Server
	done chan error
}

func serve(ctx context.Context, h http.Handler, log *slog.Logger) (*server, error) {
	l, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{
		url:  "http://" + l.Addr().String(),
		http: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)},
		done: make(chan error, 1),
	}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// close lets the requests under way finish, for a moment.
func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
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
