package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/retry"
)

func ExamplePolicy_Do() {
	calls := 0
	err := retry.Policy{BaseDelay: time.Millisecond}.Do(context.Background(), func(ctx context.Context) error {
		calls++
		if retry.Attempt(ctx) < 3 {
			return errors.New("connection reset")
		}
		return nil
	})
	fmt.Println(calls, err)
	// Output: 3 <nil>
}

func ExamplePolicy_Do_failure() {
	notFound := errors.New("no such order")
	err := retry.Policy{}.Do(context.Background(), func(context.Context) error {
		return retry.Permanent(notFound)
	})
	if e, ok := errors.AsType[*retry.Error](err); ok {
		fmt.Println(e.Attempts, "attempt:", e.Reason)
	}
	fmt.Println(errors.Is(err, notFound))
	// Output:
	// 1 attempt: not retryable
	// true
}

func ExampleDoValue() {
	price, err := retry.DoValue(context.Background(), retry.Policy{}, func(context.Context) (int, error) {
		return 4200, nil
	})
	fmt.Println(price, err)
	// Output: 4200 <nil>
}

// A server that says when to come back is obeyed, within MaxHint or the deadline of the context.
func ExampleAfter() {
	busy := true
	policy := retry.Policy{OnRetry: func(_ context.Context, e retry.Event) {
		fmt.Println(e.Hinted, e.Delay >= 5*time.Millisecond, e.Err)
	}}
	err := policy.Do(context.Background(), func(context.Context) error {
		if busy {
			busy = false
			return retry.After(errors.New("too many requests"), 5*time.Millisecond)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// true true too many requests
	// <nil>
}

// One budget shared by many calls bounds what an outage is multiplied by.
func ExampleNewBudget() {
	budget, err := retry.NewBudget(retry.BudgetConfig{Ratio: 0.1, PerSecond: 0.1})
	if err != nil {
		panic(err)
	}
	policy := retry.Policy{Budget: budget, BaseDelay: time.Nanosecond}
	calls := 0
	for range 100 {
		_ = policy.Do(context.Background(), func(context.Context) error {
			calls++
			return errors.New("down")
		})
	}
	fmt.Println(calls, "calls instead of 300")
	// Output: 111 calls instead of 300
}

// The loop of a transport, whose answer is more than an error: it is discarded only once another attempt is certain.
func ExamplePolicy_Start() {
	type response struct{ status int }
	send := func(_ context.Context, attempt int) response {
		return response{status: 500 + attempt}
	}

	t := retry.Policy{BaseDelay: time.Nanosecond}.Start(context.Background())
	for {
		r := send(t.Context(), t.Attempt())
		if r.status < 500 || !t.Again(retry.Outcome{Err: fmt.Errorf("status %d", r.status)}) {
			fmt.Println("the last response, untouched:", r.status)
			return
		}
		if err := t.Wait(); err != nil {
			fmt.Println(t.Wrap(err))
			return
		}
	}
	// Output: the last response, untouched: 503
}
