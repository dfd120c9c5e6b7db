package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

type payment struct {
	Order string
	Cents int
}

var payments = messaging.Topic[payment]{
	Name: "payments",
	Key:  func(p payment) string { return p.Order },
}

// A queue: publish values, and handle each of them in one member of a group. The return value is the acknowledgement.
func Example() {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		panic(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	consumer, err := messaging.NewConsumer(bus, payments.Name,
		payments.Handle(func(_ context.Context, p payment, m *messaging.Message) error {
			fmt.Printf("%s paid %d cents, attempt %d\n", p.Order, p.Cents, m.Attempt)
			stop()
			return nil
		}),
		messaging.ConsumerConfig{Group: "ledger"})
	if err != nil {
		panic(err)
	}
	if err := payments.Publish(ctx, publisher, payment{Order: "A-1", Cents: 1250}); err != nil {
		panic(err)
	}
	if err := consumer.Run(ctx); err != nil { // until stop is called; then the handlers finish
		panic(err)
	}
	// Output: A-1 paid 1250 cents, attempt 1
}

// A message that fails is tried again; one that cannot succeed becomes a dead letter that says why.
func ExampleConsumer() {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		panic(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	consumer, err := messaging.NewConsumer(bus, "mail",
		func(_ context.Context, m *messaging.Message) error {
			switch {
			case string(m.Body) == "nobody":
				return messaging.Reject(errors.New("no such address"))
			case m.Attempt == 1:
				return errors.New("the server is busy")
			default:
				fmt.Printf("%s: sent, attempt %d\n", m.Body, m.Attempt)
				stop()
				return nil
			}
		},
		messaging.ConsumerConfig{
			Group:       "sender",
			Concurrency: 1,
			Retry:       retry.Policy{BaseDelay: time.Millisecond}, // 1 s where it is not an example
			OnDead: func(_ context.Context, d messaging.DeadLetter) {
				fmt.Printf("%s: %s, %v\n", d.Message.Body, d.Reason, d.Err)
			},
		})
	if err != nil {
		panic(err)
	}
	err = publisher.Publish(ctx,
		&messaging.Message{Topic: "mail", Body: []byte("nobody")},
		&messaging.Message{Topic: "mail", Body: []byte("anna")})
	if err != nil {
		panic(err)
	}
	if err := consumer.Run(ctx); err != nil {
		panic(err)
	}
	// Output:
	// nobody: rejected, no such address
	// anna: sent, attempt 2
}

// Publishing many without waiting for each: Go waits only for room, Flush for all.
func ExamplePublisher_Go() {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		panic(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for i := range 1000 {
		m := &messaging.Message{Topic: "clicks", Key: "visitor", Body: fmt.Append(nil, i)}
		err := publisher.Go(ctx, m, func(err error) {
			if err != nil {
				fmt.Println("not stored:", err)
			}
		})
		if err != nil {
			panic(err)
		}
	}
	if err := publisher.Flush(ctx); err != nil {
		panic(err)
	}
	fmt.Println("all stored")
	// Output: all stored
}

// A reader without a group replays the log on its own.
func ExampleFromTime() {
	bus, err := membus.New(membus.Config{})
	if err != nil {
		panic(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	opened := time.Now()
	for _, event := range []string{"opened", "paid", "shipped"} {
		if err := publisher.Publish(ctx, &messaging.Message{Topic: "events", Body: []byte(event)}); err != nil {
			panic(err)
		}
	}
	reader, err := messaging.NewConsumer(bus, "events",
		func(_ context.Context, m *messaging.Message) error {
			fmt.Printf("%s\n", m.Body)
			if string(m.Body) == "shipped" {
				stop()
			}
			return nil
		},
		messaging.ConsumerConfig{Start: messaging.FromTime(opened), Concurrency: 1})
	if err != nil {
		panic(err)
	}
	if err := reader.Run(ctx); err != nil {
		panic(err)
	}
	// Output:
	// opened
	// paid
	// shipped
}
