package natsbus_test

import (
	"context"
	"log"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

// A worker of the group "billing": members share the messages of the topic.
func Example() {
	nc, err := nats.Connect("nats://localhost:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	bus, err := natsbus.New(nc, natsbus.Config{Prefix: "shop."})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	// At deploy time.
	if err := bus.Provision(ctx, messaging.TopicSpec{Name: "orders.created", Replicas: 3}); err != nil {
		log.Fatal(err)
	}
	charge := func(ctx context.Context, m *messaging.Message) error { return nil }
	consumer, err := messaging.NewConsumer(bus, "orders.created", charge, messaging.ConsumerConfig{Group: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	if err := consumer.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// Request and reply, over core NATS.
func ExampleCore_Request() {
	nc, err := nats.Connect("nats://localhost:4222")
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	core, err := natsbus.NewCore(nc, natsbus.CoreConfig{})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := core.Request(context.Background(), &messaging.Message{Topic: "prices", Body: []byte("42")})
	if err != nil {
		log.Fatal(err) // errors.Is(err, messaging.ErrNoResponder): nobody serves the topic
	}
	log.Printf("%s", reply.Body)
}
