package messagingtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// keyed returns messages "key-0" to "key-(n-1)" of each key, in turns.
func keyed(topic string, n int, keys ...string) []*messaging.Message {
	var m []*messaging.Message
	for i := range n {
		for _, key := range keys {
			m = append(m, &messaging.Message{Topic: topic, Key: key, Body: fmt.Appendf(nil, "%s-%d", key, i)})
		}
	}
	return m
}

// inOrder asserts that the first occurrences of a key's messages come in order, and each before the next one's.
func (k *kit) inOrder(bodies []string, n int, keys ...string) {
	k.Helper()
	for _, key := range keys {
		next := 0
		for _, b := range bodies {
			if !strings.HasPrefix(b, key+"-") {
				continue
			}
			switch b {
			case fmt.Sprintf("%s-%d", key, next):
				next++
			case fmt.Sprintf("%s-%d", key, next-1): // again
			default:
				k.Errorf("key %s: %s came when %s-%d was due; all: %q", key, b, key, next, bodies)
				return
			}
		}
		want(k, "messages of key "+key, next, n)
	}
}

func ordering() []rule {
	return []rule{
		{
			"a key stays in order under retry",
			"While a message waits for its retry, the later ones of its key wait and other keys go on; or Ordered is refused.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Ordered, c.Retry = true, every(2*lease, 5)
				if k.f.Order < messaging.OrderGroup {
					k.refused("Ordered with a Group", k.newConsumer(topic, c))
					return
				}
				began := time.Now()
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					if string(m.Body) == "a-1" && m.Attempt < 3 {
						return errNo
					}
					return nil
				})
				k.publish(keyed(topic, 5, "a", "b", "c")...)
				r.await(17, 20*lease)
				k.inOrder(r.bodies(), 5, "a", "b", "c")
				for _, s := range r.calls() {
					if s.body[0] != 'a' && s.at.Sub(began) > lease {
						k.Errorf("%s came after %v: it waited for another key", s.body, s.at.Sub(began))
					}
				}
			},
		},
		{
			"a key stays in order across members",
			"Two members of an ordered group never have two messages of one key at once.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Order >= messaging.OrderGroup, "order in a group, whose refusal is another case")
				topic := k.topic()
				c := k.config("g")
				c.Ordered, c.Buffer = true, 8
				order := make(chan string, 1000)
				work := func(_ context.Context, m *messaging.Message) error {
					time.Sleep(time.Duration(len(m.Body)%3) * time.Millisecond)
					order <- string(m.Body)
					return nil
				}
				k.run(topic, c, work)
				k.run(topic, c, work)
				keys := []string{"a", "bb", "ccc", "dddd", "eeeee"}
				k.publish(keyed(topic, 20, keys...)...)
				var got []string
				for range 100 {
					select {
					case body := <-order:
						got = append(got, body)
					case <-time.After(30 * time.Second):
						k.Fatalf("only %d of 100 messages", len(got))
					}
				}
				k.inOrder(got, 20, keys...)
			},
		},
		{
			"a retry keeps its key from other members",
			"While a message waits for its retry with the transport, no other member has a later one of its key.",
			func(k *kit) {
				k.needs(k.f.Groups && k.f.Order >= messaging.OrderGroup, "order in a group, whose refusal is another case")
				topic := k.topic()
				k.publish(keyed(topic, 2, "a")...)
				type sight struct {
					member int
					body   string
				}
				sights := make(chan sight, 10)
				ctx, cancel := context.WithTimeout(k.Context(), 3*lease)
				var members sync.WaitGroup
				for i := range 2 {
					sub := k.openAs(topic, "g", true)
					members.Go(func() {
						into := make([]messaging.Delivery, 1)
						for {
							if n, err := sub.Receive(ctx, into); err != nil || n == 0 {
								return
							}
							m := into[0].Message
							sights <- sight{i, string(m.Body)}
							s := messaging.Settlement{Ref: into[0].Ref, Action: messaging.Done}
							if string(m.Body) == "a-0" && m.Attempt == 1 {
								s.Action, s.Delay = messaging.Retry, lease/2
							}
							_ = sub.Settle(ctx, []messaging.Settlement{s}) // what it comes to is seen below
							time.Sleep(lease / 4)                          // the other member's turn
						}
					})
					k.Cleanup(func() { k.close(sub) })
				}
				members.Wait()
				cancel()
				close(sights)
				var all []sight
				for s := range sights {
					all = append(all, s)
				}
				if len(all) != 3 {
					k.Fatalf("deliveries: %+v, want a-0 twice and a-1", all)
				}
				if all[1].body == "a-1" && all[1].member != all[0].member {
					k.Errorf("deliveries: %+v: a-1 overtook a-0", all)
				}
			},
		},
		{
			"a dead letter does not freeze its key",
			"After a message was given up, the later ones of its key are handled.",
			func(k *kit) {
				k.needs(k.f.Groups && k.f.Order >= messaging.OrderGroup, "order in a group, whose refusal is another case")
				k.needs(k.storesDead(), "dead letters that are stored")
				topic := k.topic()
				c := k.config("g")
				c.Ordered, c.Retry = true, every(time.Second, 2)
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					if string(m.Body) == "a-0" {
						return errNo
					}
					return nil
				})
				k.publish(keyed(topic, 3, "a")...)
				r.await(4, 10*lease)
				want(k, "order", r.bodies(), []string{"a-0", "a-0", "a-1", "a-2"})
			},
		},
		{
			"a reader sees its log in order",
			"A reader with one handler sees messages as they were published, also when one is retried; or the order is refused.",
			func(k *kit) {
				topic := k.topic()
				c := messaging.ConsumerConfig{Ordered: true, Concurrency: 1, Retry: every(time.Second, 5)}
				if k.f.Order < messaging.OrderReader {
					k.refused("Ordered", k.newConsumer(topic, c))
					return
				}
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					if string(m.Body) == "3" && m.Attempt < 3 {
						return errNo
					}
					return nil
				})
				for i := range 8 {
					k.publish(text(topic, fmt.Sprint(i))...)
				}
				r.await(10, time.Minute)
				got := slices.Compact(r.bodies())
				want(k, "order", got, []string{"0", "1", "2", "3", "4", "5", "6", "7"})
			},
		},
	}
}
