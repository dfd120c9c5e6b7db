package natsstore_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/natsstore"
)

// Needs a NATS server with JetStream; internal/conformance runs the store against one.
func ExampleNew() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := natsstore.New(nc, "idempotency", natsstore.Config{Replicas: 3})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := store.Provision(ctx); err != nil { // at deploy time
		log.Fatal(err)
	}
	key := idempotency.Key{Scope: "tenant-7/charge", ID: "order-42"}
	receipt, err := idempotency.Do(ctx, store, key, idempotency.Config{}, func(ctx context.Context) (string, error) {
		ticket, _ := idempotency.FromContext(ctx)
		return fmt.Sprintf("charged under fence %d", ticket.Fence), nil
	})
	fmt.Println(receipt, err)
}
