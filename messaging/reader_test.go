package messaging_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

// Nothing published after Ready is missed, also when the subscription breaks before its first message.
func TestAReaderOfTheEndMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		publish(t, b, message("orders", "", "before"))
		pass(time.Hour)
		r := run(t, b, messaging.ConsumerConfig{Concurrency: 1}, ok)
		pass(time.Minute)
		b.Inject(membus.Fault{Disconnect: true})
		publish(t, b, message("orders", "", "meanwhile"))
		pass(time.Minute)
		publish(t, b, message("orders", "", "later"))
		pass(time.Minute)
		require.Equal(t, []string{"meanwhile", "later"}, r.saw())
	})
}

// A transport that answers with nothing is broken, and is not asked as fast as this process can.
func TestAReceiveOfNothingIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Confirm: messaging.ConfirmBroker})
		s.nothing.Store(true)
		events := make(chan messaging.EventKind, 100)
		r := run(t, s, messaging.ConsumerConfig{
			Group: "g", OnEvent: func(_ context.Context, e messaging.Event) { events <- e.Kind },
		}, ok)
		pass(time.Minute)
		require.Less(t, r.Stats().Reconnects, int64(20))
		require.Equal(t, messaging.Disconnected, <-events)
		s.nothing.Store(false)
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1})
		pass(time.Minute)
		require.Equal(t, []string{"a"}, r.saw())
	})
}
