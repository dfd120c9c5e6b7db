package main

// What breaks the shop from outside, by a schedule that the seed decides.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A kind of fault.
type kind string

const (
	payment503         kind = "payment-503"          // payments answers 503 with Retry-After
	paymentResetBefore kind = "payment-reset-before" // the connection breaks before the charge
	paymentResetAfter  kind = "payment-reset-after"  // the connection breaks after the charge: nobody knows of it
	paymentHangBefore  kind = "payment-hang-before"  // payments does not answer, and has not charged
	paymentHangAfter   kind = "payment-hang-after"   // payments does not answer, and has charged
	paymentsOverload   kind = "payments-overload"    // payments refuses two calls of five for a while: retries would add to it
	paymentsDown       kind = "payments-down"        // payments is down for a while: its load balancer answers 502
	ordersRestart      kind = "orders-restart"       // the gRPC server is killed in the middle of an order, and restarted
	natsRestart        kind = "nats-restart"         // the NATS server is restarted; with -nats, its connections are cut
	sameMoment         kind = "same-moment"          // a shopper clicks twice: the same key at the same moment
	answerLost         kind = "answer-lost"          // the order is done, and the shopper never hears of it
	publishLost        kind = "publish-lost"         // an event does not reach the broker
	confirmLost        kind = "confirm-lost"         // the broker has the event, and the confirmation is lost
	panicBefore        kind = "panic-before"         // a worker panics before its effect
	panicAfter         kind = "panic-after"          // a worker panics after its effect
	ackLost            kind = "ack-lost"             // a worker is done, and its acknowledgement is lost
)

var (
	// perOrder meet one order each, some dozens over a run.
	perOrder = []kind{
		payment503, paymentResetBefore, paymentResetAfter, paymentHangBefore, paymentHangAfter,
		sameMoment, answerLost, publishLost, confirmLost, panicBefore, panicAfter, ackLost,
	}
	// outages begin with one order and meet many.
	outages  = []kind{paymentsOverload, paymentsDown, ordersRestart, natsRestart}
	allKinds = slices.Concat(perOrder, outages)
)

// faultsNeed is how many orders it takes to meet every kind of fault, with room between them.
const faultsNeed = 50

// faults holds the schedule, by order, and stands around the parts of the shop: as a handler around a server, a
// middleware around a worker, a sender and a subscriber around the bus. The shop does not know of it.
type faults struct {
	pace    pace
	log     *slog.Logger
	restart struct {
		orders, nats func(down time.Duration) error
	}

	ended context.Context // releases what hangs
	end   context.CancelFunc
	work  sync.WaitGroup // outages under way
	one   sync.Mutex     // held by the outage under way: nothing is taken away twice, however fast the orders come

	mu             sync.Mutex
	plan           map[string]kind   // by order
	alias          map[string]string // an order by another id it goes under
	injected       map[kind]int
	paymentsBack   time.Time // from being down
	paymentsWell   time.Time // from being overloaded
	overloaded     int       // calls meanwhile
	callsWhileDown int       // calls that reached payments while it was down
	confirmations  int64     // by the broker, of the events that were sent to it
	err            error
}

// schedule says which order meets which fault, spread over the run: the outages at even distances, the others in a
// random order between them, no order twice.
func schedule(seed uint64, orders int, on []kind) map[int]kind {
	rng := rand.New(rand.NewPCG(seed, 1))
	var list []kind
	for _, k := range perOrder {
		if slices.Contains(on, k) {
			list = append(list, slices.Repeat([]kind{k}, max(1, orders/60))...)
		}
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	var long []kind
	for range max(1, orders/500) {
		for _, k := range outages {
			if slices.Contains(on, k) {
				long = append(long, k)
			}
		}
	}
	for i, k := range long {
		list = slices.Insert(list, (i+1)*len(list)/(len(long)+1), k)
	}
	plan := map[int]kind{}
	from, to := orders/50, orders*9/10
	for i, k := range list {
		slot, next := from+i*(to-from)/len(list), from+(i+1)*(to-from)/len(list)
		plan[slot+rng.IntN(next-slot)] = k
	}
	return plan
}

// declines says which orders are paid with a card that is declined: some of those that meet no fault.
func declines(seed uint64, orders int, plan map[int]kind) map[int]bool {
	rng := rand.New(rand.NewPCG(seed, 2))
	declined := map[int]bool{}
	for _, i := range rng.Perm(orders) {
		if _, busy := plan[i]; !busy && len(declined) < max(1, orders/40) {
			declined[i] = true
		}
	}
	return declined
}

// newFaults returns the faults of a schedule, by the ids of the orders.
func newFaults(plan map[int]kind, id func(ordinal int) string, p pace, log *slog.Logger) *faults {
	f := &faults{pace: p, log: log, plan: map[string]kind{}, alias: map[string]string{}, injected: map[kind]int{}}
	f.ended, f.end = context.WithCancel(context.Background())
	for i, k := range plan {
		f.plan[id(i)] = k
	}
	return f
}

// close ends what hangs and waits until everything that was taken away is back.
func (f *faults) close() error {
	f.end()
	f.work.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// counts returns how often each kind was really injected.
func (f *faults) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := map[string]int{}
	for k, n := range f.injected {
		m[string(k)] = n
	}
	return m
}

// knownAs tells that an order of the schedule goes under another id.
func (f *faults) knownAs(order, other string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alias[other] = order
}

// take reports whether the order is to meet a fault of this kind now. It says so once, and the caller injects it.
func (f *faults) take(k kind, order string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, ok := f.alias[order]; ok {
		order = id
	}
	if f.plan[order] != k {
		return false
	}
	delete(f.plan, order)
	f.injected[k]++
	f.log.Info("fault", "kind", string(k), "order", order)
	return true
}

// outage takes something away and brings it back, in the background.
func (f *faults) outage(restart func(time.Duration) error, down time.Duration) {
	f.work.Go(func() {
		f.one.Lock()
		err := restart(down)
		f.one.Unlock()
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.err = errors.Join(f.err, err)
		}
	})
}

// payments stands between payments and its callers.
func (f *faults) payments(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var c charge
		_ = json.Unmarshal(body, &c)
		switch {
		case f.paymentsAreDown(c.Order):
			w.WriteHeader(http.StatusBadGateway)
		case f.paymentsRefuse(c.Order):
			w.WriteHeader(http.StatusServiceUnavailable)
		case f.take(paymentResetBefore, c.Order):
			reset(w)
		case f.take(payment503, c.Order):
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case f.take(paymentResetAfter, c.Order):
			next.ServeHTTP(&answerTo{}, r)
			reset(w)
		case f.take(paymentHangBefore, c.Order):
			f.hang(r)
		case f.take(paymentHangAfter, c.Order):
			next.ServeHTTP(&answerTo{}, r)
			f.hang(r)
		case f.take(ordersRestart, c.Order):
			next.ServeHTTP(&answerTo{}, r)
			f.outage(f.restart.orders, f.pace.ordersDown)
			f.hang(r) // the one who asked is gone
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (f *faults) paymentsAreDown(order string) bool {
	begins := f.take(paymentsDown, order)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if begins {
		f.paymentsBack = now.Add(f.pace.paymentsDown)
	}
	if !now.Before(f.paymentsBack) {
		return false
	}
	f.callsWhileDown++
	return true
}

func (f *faults) paymentsRefuse(order string) bool {
	begins := f.take(paymentsOverload, order)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if begins {
		f.paymentsWell = now.Add(f.pace.paymentsOverload)
	}
	if !now.Before(f.paymentsWell) {
		return false
	}
	f.overloaded++
	return f.overloaded%5 < 2
}

// hang answers nothing until the other side has gone.
func (f *faults) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.ended.Done():
	}
	panic(http.ErrAbortHandler) // net/http's way to drop a connection without an answer
}

// reset breaks the connection in the middle of an answer's header, as a crash or a middlebox does. Had the answer not
// begun, net/http would send a request with a key again by itself on a new connection, and nobody would see it.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// answers stands between the storefront and the shoppers: an answer that decides an order is lost on its way.
func (f *faults) answers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answerTo{}
		next.ServeHTTP(a, r)
		var o orderAnswer
		_ = json.Unmarshal(a.body.Bytes(), &o)
		key := cmp.Or(r.Header.Get("Idempotency-Key"), path.Base(r.URL.Path)) // of a POST or of a GET
		if o.State.final() && f.take(answerLost, orderID(r.Header.Get("User-Id"), key)) {
			reset(w)
			return
		}
		a.deliver(w)
	})
}

// answerTo keeps an answer back.
type answerTo struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answerTo) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

func (a *answerTo) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answerTo) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *answerTo) deliver(w http.ResponseWriter) {
	for k, v := range a.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(max(a.status, http.StatusOK))
	_, _ = w.Write(a.body.Bytes())
}

var errPanic = errors.New("a fault of the demonstration")

// worker stands around the innermost handler of a worker: what it does to it happens after the duplicate was looked for
// and before the work is remembered as done.
func (f *faults) worker(next messaging.Handler, _ messaging.ConsumerInfo) (messaging.Handler, error) {
	return func(ctx context.Context, m *messaging.Message) error {
		if f.take(panicBefore, m.ID) {
			panic(errPanic)
		}
		err := next(ctx, m)
		if err == nil && f.take(panicAfter, m.ID) {
			panic(errPanic)
		}
		return err
	}, nil
}

// A bus sends and receives.
type bus interface {
	messaging.Sender
	messaging.Subscriber
}

// faultyBus stands between the shop and its broker.
type faultyBus struct {
	bus
	f *faults
}

var errBroken = fmt.Errorf("a fault of the demonstration: %w", syscall.ECONNRESET)

// Send implements messaging.Sender.
func (b faultyBus) Send(ctx context.Context, m []*messaging.Message) error {
	for i, one := range m {
		switch {
		case b.f.take(natsRestart, one.ID):
			b.f.outage(b.f.restart.nats, b.f.pace.natsDown)
			return broken(m, i)
		case b.f.take(publishLost, one.ID):
			return broken(m, i)
		case b.f.take(confirmLost, one.ID):
			if err := b.send(ctx, m); err != nil {
				return err
			}
			return broken(m, i)
		}
	}
	return b.send(ctx, m)
}

// send counts the confirmations. Those beyond the events that the broker keeps were for duplicates.
func (b faultyBus) send(ctx context.Context, m []*messaging.Message) error {
	err := b.bus.Send(ctx, m)
	if err != nil {
		return err // some may have been confirmed; they are counted when they are sent again
	}
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	for _, one := range m {
		if one.Topic == orderCreated.Name { // and no dead letter
			b.f.confirmations++
		}
	}
	return nil
}

// confirmed returns how many confirmations the broker has given.
func (f *faults) confirmed() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmations
}

// broken is what a sender answers when the connection broke before the confirmations from m[i] on came.
func broken(m []*messaging.Message, i int) error {
	e := &messaging.PublishError{}
	for ; i < len(m); i++ {
		e.Failed = append(e.Failed, messaging.Failure{Index: i, Unknown: true, Err: errBroken})
	}
	return e
}

// Open implements messaging.Subscriber.
func (b faultyBus) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	sub, err := b.bus.Open(ctx, s)
	if err != nil || s.Group == "" {
		return sub, err
	}
	return &faultySubscription{Subscription: sub, f: b.f, orders: map[uint64]string{}}, nil
}

// faultySubscription loses acknowledgements.
type faultySubscription struct {
	messaging.Subscription
	f *faults

	mu     sync.Mutex
	orders map[uint64]string // by the delivery's Ref
}

// Receive implements messaging.Subscription.
func (s *faultySubscription) Receive(ctx context.Context, into []messaging.Delivery) (int, error) {
	n, err := s.Subscription.Receive(ctx, into)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range into[:n] {
		s.orders[d.Ref] = d.Message.ID
	}
	return n, err
}

// Settle implements messaging.Subscription: an acknowledgement that is lost looks to the worker like any other.
func (s *faultySubscription) Settle(ctx context.Context, all []messaging.Settlement) error {
	var sent []messaging.Settlement
	var index []int
	for i := range all {
		if all[i].Action != messaging.Extend {
			order := s.forget(all[i].Ref)
			if all[i].Action == messaging.Done && s.f.take(ackLost, order) {
				all[i].Err = nil
				continue
			}
		}
		sent, index = append(sent, all[i]), append(index, i)
	}
	if len(sent) == 0 {
		return nil
	}
	err := s.Subscription.Settle(ctx, sent)
	for i, at := range index {
		all[at] = sent[i]
	}
	return err
}

// Lag implements messaging.Lagger.
func (s *faultySubscription) Lag(ctx context.Context) (messaging.Lag, error) {
	if l, ok := s.Subscription.(messaging.Lagger); ok {
		return l.Lag(ctx)
	}
	return messaging.Lag{}, messaging.ErrUnsupported
}

// forget returns whose delivery it was that ends here.
func (s *faultySubscription) forget(ref uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.orders[ref]
	delete(s.orders, ref)
	return id
}
