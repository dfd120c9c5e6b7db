package messaging_test

import (
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
