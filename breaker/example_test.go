package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/breaker"
)

func ExampleBreaker_Do() {
	b, err := breaker.New("payments", breaker.Config{Consecutive: 2})
	if err != nil {
		panic(err)
	}
	for range 3 {
		err = b.Do(context.Background(), func(context.Context) error { return errors.New("connection refused") })
		fmt.Println(errors.Is(err, breaker.ErrOpen), b.State())
	}
	// Output:
	// false closed
	// false open
	// true open
}

// Allow is for a call whose outcome is known elsewhere, or is more than an error.
func ExampleBreaker_Allow() {
	b, err := breaker.New("payments", breaker.Config{})
	if err != nil {
		panic(err)
	}
	permit, err := b.Allow()
	if err != nil {
		fmt.Println(err)
		return
	}
	status := 404 // the other side is well: it answers
	if status >= 500 {
		permit.Done(breaker.Failure)
	} else {
		permit.Done(breaker.Success)
	}
	fmt.Println(b.State())
	// Output: closed
}

func ExampleGroup() {
	g, err := breaker.NewGroup(breaker.GroupConfig{})
	if err != nil {
		panic(err)
	}
	g.Get("payments.internal").Trip(time.Minute) // by hand: we know that it is down
	fmt.Println(g.Get("payments.internal").State(), g.Get("stock.internal").State())
	// Output: open closed
}

// A refusal says when to come back.
func ExampleOpenError() {
	b, err := breaker.New("payments", breaker.Config{})
	if err != nil {
		panic(err)
	}
	b.Trip(time.Minute)
	_, err = b.Allow()
	if e, ok := errors.AsType[*breaker.OpenError](err); ok {
		fmt.Println(e.Name, e.State, e.RetryAfter > 59*time.Second)
	}
	// Output: payments open true
}
