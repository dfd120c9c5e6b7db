package messaging_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// A reader has nobody to give a message back to: what waits is waited for here, however much it is.
func TestAReaderLosesNothingThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Start: messaging.Earliest()}, oncePer(func() error {
			return messaging.RetryAfter(errNo, time.Hour)
		}))
		for range 20 {
			publish(t, b, numbered("orders", 100)...)
		}
		pass(6 * time.Hour)
		require.Equal(t, int64(2000), r.Stats().Handled)
		require.NoError(t, r.stop())
	})
}

// The same of an ordered group: given back, a message would be overtaken by those of its key that wait behind it.
func TestAnOrderedConsumerKeepsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{
			Groups: true, Order: messaging.OrderGroup, Confirm: messaging.ConfirmBroker, Delay: 24 * time.Hour,
		})
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Ordered: true}, oncePer(func() error {
			return messaging.RetryAfter(errNo, time.Hour)
		}))
		for i := range 1100 {
			m := message("orders", fmt.Sprint(i), "x")
			m.ID = fmt.Sprint(i)
			s.deliver(messaging.Delivery{Message: m, Ref: uint64(i)})
			if i%50 == 0 {
				synctest.Wait()
			}
		}
		pass(6 * time.Hour)
		require.Equal(t, int64(1100), r.Stats().Handled)
		for _, v := range s.settled() {
			require.Equal(t, messaging.Done, v.Action)
		}
	})
}

// What waits in this process is bounded in bytes as well. The rest waits with the transport.
func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", BufferBytes: 1 << 20}, oncePer(func() error {
			return messaging.RetryAfter(errNo, time.Hour)
		}))
		for _, m := range numbered("orders", 100) {
			m.Body = make([]byte, 100<<10)
			publish(t, b, m)
		}
		pass(time.Minute)
		require.Equal(t, int64(5), r.Stats().Parked, "half of the bytes; the other half is for what is handled")
		require.Equal(t, int64(100), r.Stats().Received, "and what waits stops nothing")
		pass(2 * time.Hour)
		require.Equal(t, int64(100), r.Stats().Handled)
		require.Zero(t, r.Stats().Dead)
	})
}

// What a handler does to its message is not what the consumer counts with.
func TestAHandlerThatEmptiesItsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var running, most atomic.Int32
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Concurrency: 4, BufferBytes: 1 << 20},
			func(_ context.Context, m *messaging.Message) error {
				m.Body = nil
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(time.Second)
				running.Add(-1)
				return nil
			})
		for range 3 {
			most.Store(0)
			for range 20 {
				m := message("orders", "", "")
				m.Body = make([]byte, 100<<10)
				publish(t, b, m)
			}
			pass(time.Minute)
			require.Equal(t, int32(4), most.Load())
		}
		require.Equal(t, int64(60), r.Stats().Handled)
	})
}

// oncePer fails the first attempt at each message, by its ID.
func oncePer(fail func() error) messaging.Handler {
	seen := make(chan map[string]bool, 1)
	seen <- map[string]bool{}
	return func(_ context.Context, m *messaging.Message) error {
		all := <-seen
		defer func() { seen <- all }()
		if all[m.ID] {
			return nil
		}
		all[m.ID] = true
		return fail()
	}
}

func numbered(topic string, n int) []*messaging.Message {
	var m []*messaging.Message
	for i := range n {
		m = append(m, message(topic, "", fmt.Sprint(i)))
	}
	return m
}

// What was asked for before the brake came on goes back, instead of waiting with the adapter for its lease to end.
func TestTheBrakeWithdrawsWhatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Confirm: messaging.ConfirmBroker})
		var up atomic.Bool
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Retry: every(time.Second, 1)},
			func(context.Context, *messaging.Message) error {
				if up.Load() {
					return nil
				}
				return errNo
			})
		for i := range 50 {
			s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: uint64(i)})
		}
		pass(100 * time.Millisecond)
		require.Equal(t, int32(1), s.withdrawn.Load())
		up.Store(true)
		for i := range 50 {
			s.deliver(messaging.Delivery{Message: message("orders", "", "b"), Ref: uint64(100 + i)})
		}
		pass(time.Minute)
		require.Equal(t, int64(100), r.Stats().Handled+r.Stats().Dead)
		require.Equal(t, int32(1), s.withdrawn.Load())
		require.NoError(t, r.stop())
	})
}
