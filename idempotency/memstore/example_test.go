package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/memstore"
)

// A full store refuses new work. It never forgets what it has promised to remember.
func ExampleNew() {
	store, err := memstore.New(memstore.Config{MaxKeys: 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"order-1", "order-2", "order-1"} {
		key := idempotency.Key{Scope: "charge", ID: id}
		v, err := idempotency.Do(context.Background(), store, key, idempotency.Config{}, func(context.Context) (string, error) {
			return "charged " + id, nil
		})
		fmt.Println(v, errors.Is(err, idempotency.ErrFull))
	}
	// Output:
	// charged order-1 false
	//  true
	// charged order-1 false
}
