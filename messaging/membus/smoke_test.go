package membus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, err := membus.New(membus.Config{})
		require.NoError(t, err)
		p, err := messaging.NewPublisher(bus, messaging.PublisherConfig{})
		require.NoError(t, err)
		var got []string
		c, err := messaging.NewConsumer(bus, "orders", func(ctx context.Context, m *messaging.Message) error {
			got = append(got, fmt.Sprint(string(m.Body), " ", m.Attempt))
			if m.Attempt < 6 {
				return errors.New("no")
			}
			return nil
		}, messaging.ConsumerConfig{Group: "g", OnDead: func(ctx context.Context, e messaging.DeadLetter) { got = append(got, e.Reason) }})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		<-c.Ready()
		require.NoError(t, p.Publish(ctx, &messaging.Message{Topic: "orders", Body: []byte("a")}))
		time.Sleep(time.Hour)
		synctest.Wait()
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, []string{"a 1", "a 2", "a 3", "a 4", "a 5", "attempts"}, got)
		t.Logf("%+v", c.Stats())
	})
}
