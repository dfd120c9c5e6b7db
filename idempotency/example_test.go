package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/memstore"
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
