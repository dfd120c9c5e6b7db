package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/memstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

func ExampleDo() {
	store, err := memstore.New(memstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	type payment struct{ Amount int }
	charges := 0
	charge := func(amount int) (payment, error) {
		key := idempotency.Key{Scope: "tenant-7/charge", ID: "order-42"}
		config := idempotency.Config{Fingerprint: fmt.Append(nil, amount)}
		return idempotency.Do(context.Background(), store, key, config, func(ctx context.Context) (payment, error) {
			charges++
			return payment{Amount: amount}, nil
		})
	}

	fmt.Println(charge(100))
	fmt.Println(charge(100)) // the same again: the kept value
	_, err = charge(900)     // another operation under the same key
	fmt.Println(errors.Is(err, idempotency.ErrMismatch))
	fmt.Println("charges:", charges)
	// Output:
	// {100} <nil>
	// {100} <nil>
	// true
	// charges: 1
}

func ExampleConsume() {
	store, err := memstore.New(memstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	bus, err := membus.New(membus.Config{Dedupe: time.Nanosecond}) // so that the duplicate gets as far as the consumer
	if err != nil {
		log.Fatal(err)
	}
	attempts := make(chan error, 2)
	consumer, err := messaging.NewConsumer(bus, "orders", func(ctx context.Context, m *messaging.Message) error {
		fmt.Printf("charge for %s\n", m.Body)
		return nil
	}, messaging.ConsumerConfig{
		Group:     "billing",
		Use:       []messaging.Middleware{idempotency.Consume(store, "billing", idempotency.ConsumeConfig{})},
		OnAttempt: func(_ context.Context, a messaging.HandleAttempt) { attempts <- a.Err },
	})
	if err != nil {
		log.Fatal(err)
	}
	publisher, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- consumer.Run(ctx) }()
	for range 2 { // a producer that does not know whether its first try was stored
		order := &messaging.Message{ID: "order-42", Topic: "orders", Body: []byte("order 42")}
		if err := publisher.Publish(ctx, order); err != nil {
			log.Fatal(err)
		}
		fmt.Println("acknowledged:", <-attempts == nil)
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// charge for order 42
	// acknowledged: true
	// acknowledged: true
	// <nil>
}
