package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

func delivering() []rule {
	return []rule{
		{
			"ready means nothing is missed",
			"What is published after Ready is received, also by a reader that begins at the end.",
			func(k *kit) {
				topic := k.topic()
				for i := range 20 {
					r := k.run(topic, messaging.ConsumerConfig{}, nil)
					body := fmt.Sprint(i)
					k.publish(text(topic, body)...)
					r.await(1, 10*time.Second)
					want(k, "received", r.bodies(), []string{body})
					if err := r.stop(); err != nil {
						k.Errorf("Run: %v", err)
					}
				}
			},
		},
		{
			"a message arrives whole",
			"ID, Topic, Key, Type, Source, Header, Body and Time are what was published; Attempt is 1 and Group the group.",
			func(k *kit) {
				topic := k.topic()
				group := ""
				if k.f.Groups {
					group = "g"
				}
				r := k.run(topic, k.config(group), nil)
				m := &messaging.Message{
					ID: "id-1", Topic: topic, Key: "key ü", Type: "order.paid", Source: "/shop",
					Header: messaging.Header{"tenant": "a", "note": "a: b, \"c\" — ü"},
					Body:   []byte{0, 1, 255, '\n'}, Time: time.Now().Add(-time.Minute - 123456789).Round(0),
				}
				k.publish(m)
				got := r.await(1, 10*time.Second)[0].m
				want(k, "ID", got.ID, m.ID)
				want(k, "Topic", got.Topic, m.Topic)
				want(k, "Key", got.Key, m.Key)
				want(k, "Type", got.Type, m.Type)
				want(k, "Source", got.Source, m.Source)
				want(k, "Header", got.Header, m.Header)
				want(k, "Body", got.Body, m.Body)
				want(k, "Time", got.Time.UTC().Format(time.RFC3339Nano), m.Time.UTC().Format(time.RFC3339Nano))
				want(k, "Attempt", got.Attempt, 1)
				want(k, "Group", got.Group, group)
			},
		},
		{
			"members of a group compete",
			"Two consumers of one group share the messages: each message is handled once.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				a, b := k.run(topic, k.config("g"), nil), k.run(topic, k.config("g"), nil)
				for i := range 100 {
					k.publish(text(topic, fmt.Sprint(i))...)
				}
				k.eventually(10*time.Second, func() bool { return len(a.calls())+len(b.calls()) >= 100 },
					func() string { return fmt.Sprintf("100 calls; got %d and %d", len(a.calls()), len(b.calls())) })
				time.Sleep(3 * lease)
				times := map[string]int{}
				for _, body := range append(a.bodies(), b.bodies()...) {
					times[body]++
				}
				for body, n := range times {
					if n != 1 {
						k.Errorf("message %s was handled %d times", body, n)
					}
				}
			},
		},
		{
			"groups are independent",
			"Each group gets every message, and a slow group does not hold another.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				block := make(chan struct{})
				defer close(block)
				slow := k.config("slow")
				slow.Concurrency = 1
				k.run(topic, slow, func(ctx context.Context, _ *messaging.Message) error {
					select {
					case <-block:
					case <-ctx.Done():
					}
					return nil
				})
				a, b := k.run(topic, k.config("a"), nil), k.run(topic, k.config("b"), nil)
				k.publish(text(topic, "1", "2", "3", "4", "5")...)
				a.await(5, 10*time.Second)
				b.await(5, 10*time.Second)
			},
		},
		{
			"a group keeps its place",
			"What is published while no member is connected is received by the next one, from where the group had begun.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				c := k.config("g")
				c.Start = messaging.Latest()
				k.publish(text(topic, "before")...)
				if err := k.run(topic, c, nil).stop(); err != nil {
					k.Fatalf("Run: %v", err)
				}
				k.publish(text(topic, "1", "2", "3")...)
				r := k.run(topic, c, nil)
				r.await(3, 10*time.Second)
				time.Sleep(lease)
				if got := r.bodies(); len(got) != 3 {
					k.Errorf("received %q, want 1, 2 and 3", got)
				}
			},
		},
		{
			"concurrency is bounded",
			"Never more handlers are at work than Concurrency says, and that many are if there is work.",
			func(k *kit) {
				topic := k.topic()
				c := messaging.ConsumerConfig{Concurrency: 3}
				if k.f.Groups {
					c.Group = "g"
				}
				var mu sync.Mutex
				now, most := 0, 0
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					time.Sleep(50 * time.Millisecond)
					mu.Lock()
					now--
					mu.Unlock()
					return nil
				})
				for i := range 30 {
					k.publish(text(topic, fmt.Sprint(i))...)
				}
				r.await(30, 30*time.Second)
				mu.Lock()
				defer mu.Unlock()
				want(k, "most handlers at once", most, 3)
			},
		},
		{
			"lag is known, or refused",
			"Lag counts what is stored and not delivered, and what is delivered and not settled; or it is ErrUnsupported.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Concurrency = 2
				block := make(chan struct{})
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					<-block
					return nil
				})
				k.publish(text(topic, "1", "2", "3", "4", "5")...)
				r.await(2, 10*time.Second)
				time.Sleep(time.Second)
				lag, err := r.c.Lag(k.Context())
				if errors.Is(err, messaging.ErrUnsupported) {
					close(block)
					return
				}
				if err != nil {
					k.Errorf("Lag: %v", err)
				}
				want(k, "lag", lag, messaging.Lag{Messages: 3, Unacked: 2})
				close(block)
				r.await(5, 10*time.Second)
				r.settled()
				if lag, err = r.c.Lag(k.Context()); err != nil {
					k.Errorf("Lag: %v", err)
				}
				want(k, "lag in the end", lag, messaging.Lag{})
			},
		},
		{
			"a disconnection is survived",
			"Run goes on when the connection breaks; what is published afterwards is handled.",
			func(k *kit) {
				k.needs(k.h.Disconnect != nil, "a connection that can break")
				topic := k.topic()
				c := messaging.ConsumerConfig{}
				if k.f.Groups {
					c = k.config("g")
				}
				r := k.run(topic, c, nil)
				k.publish(text(topic, "1")...)
				r.await(1, 10*time.Second)
				r.settled()
				k.h.Disconnect(k.T)
				time.Sleep(time.Minute)
				k.publish(text(topic, "2")...)
				r.await(2, time.Minute)
				want(k, "received", r.bodies(), []string{"1", "2"})
			},
		},
	}
}
