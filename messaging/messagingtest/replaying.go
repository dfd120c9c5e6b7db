package messagingtest

import (
	"time"

	"github.com/tandemgo/tandem/messaging"
)

func replaying() []rule {
	return []rule{
		{
			"a reader starts where it wants, or is refused",
			"Earliest, FromTime and After begin where they say, as far as Replay promises; what it does not promise is refused.",
			func(k *kit) {
				topic := k.topic()
				earliest := messaging.ConsumerConfig{Concurrency: 1, Start: messaging.Earliest()}
				if k.f.Replay < messaging.ReplayEarliest {
					k.refused("Earliest", k.newConsumer(topic, earliest))
				}
				k.publish(text(topic, "1", "2")...)
				time.Sleep(2 * time.Second)
				noon := time.Now()
				time.Sleep(2 * time.Second)
				k.publish(text(topic, "3", "4")...)

				var cursor messaging.Cursor
				if k.f.Replay >= messaging.ReplayEarliest {
					r := k.run(topic, earliest, nil)
					got := r.await(4, 10*time.Second)
					want(k, "from the earliest", r.bodies(), []string{"1", "2", "3", "4"})
					cursor = got[1].m.Cursor
				}
				from := messaging.ConsumerConfig{Concurrency: 1, Start: messaging.FromTime(noon)}
				if k.f.Replay < messaging.ReplayTime {
					k.refused("FromTime", k.newConsumer(topic, from))
				} else {
					r := k.run(topic, from, nil)
					r.await(2, 10*time.Second)
					want(k, "from a time", r.bodies(), []string{"3", "4"})
				}
				after := messaging.ConsumerConfig{Concurrency: 1, Start: messaging.After(cursor)}
				if k.f.Replay < messaging.ReplayCursor {
					k.refused("After", k.newConsumer(topic, after))
					return
				}
				r := k.run(topic, after, nil)
				r.await(2, 10*time.Second)
				want(k, "after a cursor", r.bodies(), []string{"3", "4"})
			},
		},
		{
			"a new group begins at the earliest message",
			"A group without a place begins with the oldest message kept, unless Start says otherwise.",
			func(k *kit) {
				if !k.needGroups() || k.f.Replay < messaging.ReplayEarliest {
					return
				}
				topic := k.topic()
				k.publish(text(topic, "1", "2")...)
				k.run(topic, k.config("g"), nil).await(2, 10*time.Second)
				latest := k.config("late")
				latest.Start = messaging.Latest()
				r := k.run(topic, latest, nil)
				k.publish(text(topic, "3")...)
				r.await(1, 10*time.Second)
				time.Sleep(time.Second)
				want(k, "from the end", r.bodies(), []string{"3"})
			},
		},
	}
}
