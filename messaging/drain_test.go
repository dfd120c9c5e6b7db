package messaging_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// A shutdown gives everything back but what nobody would deliver again: that becomes a dead letter.
func TestALastDeliveryThatFailsInADrain(t *testing.T) {
	for name, handler := range map[string]messaging.Handler{
		"a failure": func(context.Context, *messaging.Message) error {
			time.Sleep(5 * time.Second)
			return errNo
		},
		"told to wait": func(context.Context, *messaging.Message) error {
			time.Sleep(5 * time.Second)
			return messaging.RetryAfter(errNo, time.Minute)
		},
		"cut short": func(ctx context.Context, _ *messaging.Message) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(messaging.Features{
					Groups: true, Confirm: messaging.ConfirmBroker, Delay: time.Hour, Attempts: messaging.AttemptsBroker,
				})
				r := run(t, s, messaging.ConsumerConfig{Group: "g"}, handler)
				s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Last: true})
				pass(time.Second)
				require.NoError(t, r.stop())
				require.Equal(t, []string{"1 done"}, s.verdicts())
				require.Equal(t, "last", r.dead1(t).Reason)
			})
		})
	}
}

// A stuck handler's last delivery is not given back either: it may still come to its end.
func TestALastDeliveryOfAStuckHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Confirm: messaging.ConfirmBroker, Delay: time.Hour})
		block := make(chan struct{})
		r := run(t, s, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			<-block
			return nil
		})
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Last: true},
			messaging.Delivery{Message: message("orders", "", "b"), Ref: 2})
		pass(time.Second)
		require.ErrorIs(t, r.stop(), messaging.ErrDraining)
		require.Equal(t, []string{"2 release"}, s.verdicts())
		close(block)
	})
}

// What a drain has taken out of its lane is not taken up again when the message before it ends.
func TestADrainEmptiesTheLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Order: messaging.OrderGroup, Confirm: messaging.ConfirmBroker})
		s.sender.answer = func(int, []*messaging.Message) error {
			time.Sleep(2 * time.Second)
			return nil
		}
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Ordered: true}, func(context.Context, *messaging.Message) error {
			time.Sleep(2 * time.Second)
			return nil
		})
		s.deliver(messaging.Delivery{Message: message("orders", "k", "running"), Ref: 1},
			messaging.Delivery{Message: message("orders", "k", "last"), Ref: 2, Last: true},
			messaging.Delivery{Message: message("orders", "k", "waits"), Ref: 3})
		pass(time.Second)
		require.NoError(t, r.stop())
		require.Equal(t, []string{"running"}, r.saw())
		require.ElementsMatch(t, []string{"1 done", "2 done", "3 release"}, s.verdicts())
		require.Equal(t, [][]string{{"last"}}, s.sender.calls)
	})
}
