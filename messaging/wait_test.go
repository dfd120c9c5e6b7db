package messaging_test

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// However little a handler asks for, it is not called in a loop.
func TestTheLeastDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", MaxAge: time.Second},
			func(context.Context, *messaging.Message) error { return messaging.RetryAfter(errNo, 1) })
		publish(t, b, message("orders", "", "a"))
		pass(time.Minute)
		require.LessOrEqual(t, len(r.saw()), 1002)
		require.Equal(t, "age", r.dead1(t).Reason)
	})
}

// Those who wait for one breaker do not come back at one instant.
func TestWaitsThatWereAskedForAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Concurrency: 100}, oncePer(func() error {
			return messaging.RetryAfter(errNo, 10*time.Second)
		}))
		began := time.Now()
		publish(t, b, numbered("orders", 100)...)
		pass(time.Minute)
		when := map[time.Time]bool{}
		for _, at := range r.times()[100:] {
			when[at] = true
			require.GreaterOrEqual(t, at.Sub(began), 10*time.Second)
			require.LessOrEqual(t, at.Sub(began), 11*time.Second)
		}
		require.Greater(t, len(when), 50)
	})
}

// Trap: consumers were away for two days, and an open breaker makes dead letters of all that has gathered.
func TestAnOldMessageMayWaitALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		publish(t, b, message("orders", "", "a"))
		pass(48 * time.Hour)
		var calls atomic.Int64
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			if calls.Add(1) < 10 {
				return messaging.RetryAfter(errNo, 5*time.Second)
			}
			return nil
		})
		pass(time.Hour)
		require.Equal(t, int64(1), r.Stats().Handled)

		publish(t, b, message("orders", "", "b"))
		calls.Store(math.MinInt64)
		pass(26 * time.Hour)
		require.Equal(t, "age", r.dead1(t).Reason, "but not for ever")
	})
}

// That a connection of this process is closed says nothing about the message.
func TestAClosedTransportIsNoRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, oncePer(func() error {
			return &messaging.PublishError{Failed: []messaging.Failure{{Err: retry.Permanent(fmt.Errorf("bus: %w", messaging.ErrClosed))}}}
		}))
		publish(t, b, message("orders", "", "a"))
		pass(time.Minute)
		require.Equal(t, int64(1), r.Stats().Handled)
	})
}
