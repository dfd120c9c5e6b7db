package membus_test

import (
	"testing"
	"testing/synctest"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/messaging/messagingtest"
)

func TestContract(t *testing.T) {
	messagingtest.Run(t, synctest.Test, func(t *testing.T) messagingtest.Harness {
		bus, err := membus.New(membus.Config{Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		return messagingtest.Harness{
			Sender: bus, Subscriber: bus, Unknown: "nobody.made.it",
			Provision: func(t *testing.T, topic string) {
				if err := bus.Provision(t.Context(), messaging.TopicSpec{Name: topic}); err != nil {
					t.Fatal(err)
				}
			},
			Expire:     func(*testing.T) { bus.Inject(membus.Fault{ExpireLeases: true}) },
			Disconnect: func(*testing.T) { bus.Inject(membus.Fault{Disconnect: true}) },
		}
	})
}
