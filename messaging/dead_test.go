package messaging_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

func TestTheTopicOfDeadLettersMustBeOne(t *testing.T) {
	topic := strings.Repeat("x", 198)
	_, err := messaging.NewConsumer(newBus(t, busConfig), topic, ok, messaging.ConsumerConfig{Group: "g"})
	require.ErrorIs(t, err, messaging.ErrInvalid, "the topic and .dead is too long")
	_, err = messaging.NewConsumer(newBus(t, busConfig), topic, ok, messaging.ConsumerConfig{Group: "g", DeadLetter: "dead"})
	require.NoError(t, err)
}

// A message that just fits can be dead-lettered, though the transport counts what we do not.
func TestADeadLetterThatIsTooLargeLeavesItsReasonOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Confirm: messaging.ConfirmBroker})
		s.sender.answer = func(_ int, m []*messaging.Message) error {
			if len(m[0].Header) > 1 {
				return failed(messaging.Failure{Err: retry.Permanent(&messaging.TooLargeError{Size: 2, Limit: 1})})
			}
			return nil
		}
		r := run(t, s, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			return messaging.Reject(errNo)
		})
		m := message("orders", "", "a")
		m.Header = messaging.Header{"tenant": "x"}
		s.deliver(messaging.Delivery{Message: m, Ref: 1})
		pass(time.Hour)
		require.Equal(t, []string{"1 done"}, s.verdicts())
		require.Equal(t, "rejected", r.dead1(t).Reason)
	})
}

// Whatever could be published can be dead-lettered, to the byte.
func TestTheLargestMessageCanBeDeadLettered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxMessage: 10_000})
		p := publisher(t, b, messaging.PublisherConfig{})
		size := 9000
		for ; ; size++ {
			m := &messaging.Message{Topic: "probe", Source: "/s", Body: make([]byte, size+1)}
			if p.Publish(t.Context(), m) != nil {
				break
			}
		}
		run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			return messaging.Reject(errNo)
		})
		m := &messaging.Message{Topic: "orders", Source: "/s", Body: make([]byte, size)}
		if p.Publish(t.Context(), m) != nil { // where the name of the topic counts
			m.Body = m.Body[1:]
			require.NoError(t, p.Publish(t.Context(), m))
		}
		pass(time.Hour)
		require.Len(t, readDead(t, b), 1)
	})
}
