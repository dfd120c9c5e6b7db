package messaging_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

// What became of a message whose lease is lost is decided by its next owner. A dead letter beside that would be one of a
// message that somebody may handle.
func TestALostMessageIsNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Retry: every(time.Second, 1)},
			func(ctx context.Context, m *messaging.Message) error {
				if m.Attempt > 1 {
					return nil
				}
				<-ctx.Done()
				return messaging.Reject(context.Cause(ctx))
			})
		publish(t, b, message("orders", "", "a"))
		pass(time.Second)
		b.Inject(membus.Fault{ExpireLeases: true})
		pass(time.Minute)
		s := r.Stats()
		require.Equal(t, int64(1), s.Handled)
		require.Equal(t, int64(1), s.Late)
		require.Zero(t, s.Dead)
		require.Zero(t, s.Failed)
		require.Empty(t, readDead(t, b))
	})
}

// Trap: a hook that takes its time costs the leases of everything in hand.
func TestASlowHookCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var told []string
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g",
			OnSettle: func(_ context.Context, e messaging.SettleError) {
				time.Sleep(10 * time.Minute)
				told = append(told, string(e.Message.Body))
			},
		}, func(_ context.Context, m *messaging.Message) error {
			if string(m.Body) == "long" {
				time.Sleep(5 * time.Minute)
			}
			return nil
		})
		b.Inject(membus.Fault{DropAcks: 1})
		publish(t, b, message("orders", "", "lost"))
		pass(time.Second)
		publish(t, b, message("orders", "", "long"))
		pass(20 * time.Minute)
		require.Equal(t, []string{"lost", "long", "lost"}, r.saw())
		require.Zero(t, r.Stats().Late)
		require.Equal(t, []string{"lost"}, told)
		require.NoError(t, r.stop())
	})
}

// Hooks are the user's code, and users' tests end goroutines.
func TestAHookThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g", Concurrency: 1, Retry: every(time.Second, 2),
			OnSettle:  func(context.Context, messaging.SettleError) { goexit() },
			OnAttempt: func(context.Context, messaging.HandleAttempt) { goexit() },
			OnDead:    func(context.Context, messaging.DeadLetter) { goexit() },
		}, func(_ context.Context, m *messaging.Message) error {
			if string(m.Body) == "bad" {
				return errNo
			}
			return nil
		})
		b.Inject(membus.Fault{DropAcks: 2})
		publish(t, b, bodies("orders", "a", "bad", "b")...)
		pass(time.Hour)
		require.NoError(t, r.stop())
		require.Equal(t, int64(1), r.Stats().Dead)
		require.GreaterOrEqual(t, r.Stats().Handled, int64(2))
		require.Zero(t, r.Stats().InFlight)
	})
}

// The lease that was asked for is a wish. The one that was given is kept alive.
func TestALeaseShorterThanTheWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const given = 6 * time.Second
		s := newScript(messaging.Features{Groups: true, Lease: true, Extend: true, Confirm: messaging.ConfirmBroker})
		s.settle = func(v *messaging.Settlement) {
			if v.Action == messaging.Extend {
				v.Until = time.Now().Add(given)
			}
		}
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Lease: 30 * time.Second},
			func(ctx context.Context, _ *messaging.Message) error {
				time.Sleep(time.Minute)
				return ctx.Err()
			})
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Until: time.Now().Add(given)})
		pass(2 * time.Minute)
		require.Zero(t, r.Stats().Late)
		require.Equal(t, int64(1), r.Stats().Handled)
	})
}

// A transport that does not answer to an extension holds up nothing else that has its time.
func TestAnExtensionWithoutAnswerHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Lease: true, Extend: true, Confirm: messaging.ConfirmBroker})
		s.settle = func(v *messaging.Settlement) {
			if v.Action == messaging.Extend {
				time.Sleep(4 * time.Second)
				v.Err = errBroker
			}
		}
		until := time.Now().Add(30 * time.Second)
		causes := make(chan error, 1)
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Retry: every(12*time.Second, 2)},
			func(ctx context.Context, m *messaging.Message) error {
				if string(m.Body) == "long" {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					require.Equal(t, until, time.Now())
					return nil
				}
				if m.Attempt == 1 {
					return errNo
				}
				return nil
			})
		began := time.Now()
		s.deliver(
			messaging.Delivery{Message: message("orders", "", "long"), Ref: 1, Until: until},
			messaging.Delivery{Message: message("orders", "", "a"), Ref: 2, Until: began.Add(time.Hour)},
		)
		pass(time.Minute)
		require.ErrorIs(t, <-causes, messaging.ErrLeaseLost)
		require.Equal(t, 12*time.Second, r.times()[2].Sub(began))
	})
}

// Close comes after the last Settle, of an extension too.
func TestASubscriptionIsClosedAfterItsLastSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Lease: true, Extend: true, Confirm: messaging.ConfirmBroker})
		extending := false
		s.settle = func(v *messaging.Settlement) {
			if v.Action == messaging.Extend {
				extending = true
				time.Sleep(2 * time.Second)
				extending = false
			}
		}
		closed := false
		s.close = func() {
			closed = true
			require.False(t, extending)
		}
		run(t, s, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			time.Sleep(11 * time.Second)
			return nil
		})
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Until: time.Now().Add(30 * time.Second)})
		pass(time.Second)
		s.fail <- errors.New("broken")
		pass(time.Minute)
		require.True(t, closed)
	})
}
