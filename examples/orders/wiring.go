package main

// How each part is connected and configured: the file to copy from.

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
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

// wiring gives each part of the shop its connections and its policies, which are the same words over every transport: a
// timeout for an attempt, retries within a budget, breakers. A service takes its times from its own configuration, or
// leaves them zero; and it has no demo: each of its calls returns what it was given, but for what this run takes away or
// breaks.
type wiring struct {
	prefix  string // of everything this run makes at the broker
	pace    pace
	urls    struct{ payments, mail, stock string }
	metrics *metrics
	log     *slog.Logger
	demo    demo
}

// connect returns a connection for one part of the shop. It never gives up coming back; while it is away a publish fails
// at once, instead of waiting in a buffer that nobody confirms.
func (w *wiring) connect(url, name string) (*nats.Conn, error) {
	nc, err := nats.Connect(url,
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(w.pace.reconnect),
		nats.ReconnectJitter(w.pace.reconnect/2, w.pace.reconnect/2),
		nats.ReconnectBufSize(-1),
		nats.IgnoreDiscoveredServers(), // with -nats the way is through the proxy
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { w.log.Debug("nats", "conn", name, "error", err) }),
		nats.ReconnectHandler(func(*nats.Conn) { w.metrics.reconnected() }),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	return nc, nil
}

// provision declares what is kept at the broker: the topic, the journal and the claims. It belongs to a deployment.
func (w *wiring) provision(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := w.bus(nc)
	if err != nil {
		return err
	}
	if err := b.Provision(ctx, messaging.TopicSpec{Name: orderCreated.Name}); err != nil {
		return err
	}
	claims, err := w.claims(nc)
	if err != nil {
		return err
	}
	if err := claims.Provision(ctx); err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: w.prefix + "-journal", Storage: jetstream.FileStorage})
	return err
}

func (w *wiring) bus(nc *nats.Conn) (*natsbus.Bus, error) {
	return natsbus.New(nc, natsbus.Config{Prefix: w.prefix + "."})
}

// claims is where the storefront and the workers remember what was done.
func (w *wiring) claims(nc *nats.Conn) (*natsstore.Store, error) {
	return natsstore.New(nc, w.prefix+"-claims", natsstore.Config{})
}

// retries has the defaults of the place where it is used, and counts.
func (w *wiring) retries(place string) retry.Policy {
	return retry.Policy{OnRetry: w.metrics.retried(place), OnGiveUp: w.metrics.gaveUp}
}

func (w *wiring) breakers() (*breaker.Group, error) {
	return breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{
		OpenFor: w.pace.breakerOpen, MaxOpenFor: 2 * w.pace.breakerOpen, OnStateChange: w.metrics.stateChanged,
	}})
}

// storefront is what the process that shoppers speak to consists of.
func (w *wiring) storefront(nc *nats.Conn, orders *grpc.ClientConn) (http.Handler, error) {
	answers, err := w.claims(nc)
	if err != nil {
		return nil, err
	}
	h, err := newStorefront(w.demo.ordersClient(ordersproto.NewOrderServiceClient(orders)), w.demo.answers(answers), httpguard.Config{
		Lease:   3 * w.pace.lease, // a heartbeat that is late on a busy machine is not to end an order
		OnEvent: w.metrics.decided("storefront"),
		Log:     w.log.With("part", "storefront"),
	})
	if err != nil {
		return nil, err
	}
	return w.demo.storefront(h), nil
}

// ordersConn returns the storefront's connection to orders.
func (w *wiring) ordersConn(address string) (*grpc.ClientConn, error) {
	guards, err := w.breakers()
	if err != nil {
		return nil, err
	}
	options, err := grpcclient.DialOptions(w.demo.grpc(grpcclient.Config{
		Timeout:        20 * time.Second,           // shoppers would rather wait than come back
		AttemptTimeout: 10 * w.pace.attemptTimeout, // one attempt here is several at payments
		Retry:          w.retries("orders"),
		Breakers:       guards,
		Log:            w.log.With("part", "storefront"),
	}))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // on loopback
		grpc.WithConnectParams(grpc.ConnectParams{ // grpc's own would wait a second before it looks again
			Backoff:           backoff.Config{BaseDelay: w.pace.reconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	)...)
}

// orders is what the process of the OrderService consists of.
func (w *wiring) orders(ctx context.Context, nc *nats.Conn) (*orders, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	kv, err := js.KeyValue(ctx, w.prefix+"-journal")
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	partner, err := w.payments()
	if err != nil {
		return nil, err
	}
	publisher, err := w.publisher(nc)
	if err != nil {
		return nil, err
	}
	o := &orders{
		journal:  &journal{kv: kv, retry: w.demo.retries(w.retries("journal")), try: w.pace.attemptTimeout},
		payments: &paymentsClient{http: partner, url: w.urls.payments},
		events:   publisher,
		resumes:  w.demo.resumes(w.pace.resumes),
		metrics:  w.metrics,
		log:      w.log.With("part", "orders"),
	}
	return o, o.open()
}

// payments has a budget over a shorter window than the default of 10 s, which would hold enough for this whole show.
func (w *wiring) payments() (*http.Client, error) {
	budget, err := retry.NewBudget(retry.BudgetConfig{Window: w.pace.budgetWindow})
	if err != nil {
		return nil, err
	}
	p := w.retries("payments")
	p.Budget = budget
	return w.partner("payments", p)
}

// partner returns the client that one part uses to call one party outside.
func (w *wiring) partner(place string, p retry.Policy) (*http.Client, error) {
	guards, err := w.breakers()
	if err != nil {
		return nil, err
	}
	return client.New(w.demo.http(place, client.Config{
		AttemptTimeout: w.pace.attemptTimeout,
		Retry:          p,
		Breakers:       guards,
		Headers:        client.HeadersNone, // deadlines and attempts are told inside the house only
		Log:            w.log.With("client", place),
	}))
}

func (w *wiring) publisher(nc *nats.Conn) (*messaging.Publisher, error) {
	b, err := w.bus(nc)
	if err != nil {
		return nil, err
	}
	guards, err := w.breakers()
	if err != nil {
		return nil, err
	}
	return messaging.NewPublisher(w.demo.sender(b), w.demo.publisher(messaging.PublisherConfig{
		AttemptTimeout: 2 * w.pace.attemptTimeout,
		Retry:          w.retries("publish"),
		Breakers:       guards,
		Source:         "/orders",
		Log:            w.log.With("part", "orders"),
	}))
}

// emailWorker is what each of the processes consists of that send mails.
func (w *wiring) emailWorker(nc *nats.Conn) (*worker, error) {
	return w.worker(nc, "email", func(s messaging.Subscriber, gateway *http.Client, c messaging.ConsumerConfig) (*messaging.Consumer, error) {
		return newEmailWorker(s, gateway, w.urls.mail, c)
	})
}

// inventoryWorker is what the process consists of that takes from the stock.
func (w *wiring) inventoryWorker(nc *nats.Conn) (*worker, error) {
	return w.worker(nc, "inventory", func(s messaging.Subscriber, warehouse *http.Client, c messaging.ConsumerConfig) (*messaging.Consumer, error) {
		return newInventoryWorker(s, warehouse, w.urls.stock, c)
	})
}

// worker gives the workers of a group what they have in common. An event is handled once, as far as the claims can tell;
// where they cannot, because a worker died in the middle, the party it called knows the event's ID.
func (w *wiring) worker(nc *nats.Conn, group string,
	newWorker func(messaging.Subscriber, *http.Client, messaging.ConsumerConfig) (*messaging.Consumer, error),
) (*worker, error) {
	b, err := w.bus(nc)
	if err != nil {
		return nil, err
	}
	claims, err := w.claims(nc)
	if err != nil {
		return nil, err
	}
	party, err := w.partner(group, w.retries(group))
	if err != nil {
		return nil, err
	}
	log := w.log.With("part", group)
	once := idempotency.Consume(w.demo.handled(claims), group, idempotency.ConsumeConfig{
		OnEvent: w.metrics.decided("consumers"),
		Log:     log,
	})
	c, err := newWorker(w.demo.subscriber(b), party, w.demo.consumer(messaging.ConsumerConfig{
		Lease:     w.pace.lease,
		Retry:     retry.Policy{BaseDelay: w.pace.workerRetry},
		Use:       []messaging.Middleware{once},
		OnAttempt: w.metrics.handled,
		Log:       log,
	}))
	return &worker{consumer: c, party: party}, err
}

// analytics is what the process consists of that reads the stream.
func (w *wiring) analytics(nc *nats.Conn, l *ledger) (*worker, error) {
	b, err := w.bus(nc)
	if err != nil {
		return nil, err
	}
	c, err := newAnalytics(b, l, messaging.ConsumerConfig{
		Retry:     retry.Policy{BaseDelay: w.pace.workerRetry},
		OnAttempt: w.metrics.handled,
		Log:       w.log.With("part", "analytics"),
	})
	return &worker{consumer: c}, err
}
