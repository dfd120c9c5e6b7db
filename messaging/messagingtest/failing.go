package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

var errNo = errors.New("no: a line\nand another")

// every is a policy that waits d each time.
func every(d time.Duration, attempts int) retry.Policy {
	return retry.Policy{MaxAttempts: attempts, Backoff: func() retry.Intervals { return constant(d) }}
}

type constant time.Duration

func (c constant) NextBackOff() time.Duration { return time.Duration(c) }
func (constant) Reset()                       {}

func failing() []rule {
	return []rule{
		{
			"a failed message comes again after the delay",
			"An error means another attempt, not before the policy's delay, with Attempt one higher; nil ends it.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Retry = every(3*time.Second, 5)
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					if m.Attempt < 3 {
						return errNo
					}
					return nil
				})
				k.publish(text(topic, "a")...)
				got := r.await(3, time.Minute)
				for i, s := range got {
					want(k, "attempt", s.attempt, i+1)
					if i == 0 {
						continue
					}
					if gap := s.at.Sub(got[i-1].at); gap < 3*time.Second || gap > 5*time.Second {
						k.Errorf("attempt %d came %v after the one before, want 3s", i+1, gap)
					}
				}
				time.Sleep(3 * lease)
				want(k, "calls in the end", len(r.calls()), 3)
			},
		},
		{
			"a failing message holds up no other",
			"While one message waits for its retry, the others are handled, also by a single handler.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Concurrency, c.Retry = 1, every(time.Hour, 5)
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					if strings.HasPrefix(string(m.Body), "bad") {
						return errNo
					}
					return nil
				})
				k.publish(text(topic, "bad1", "bad2", "bad3", "good1", "good2")...)
				r.await(5, 10*time.Second)
			},
		},
		{
			"a dead letter says why and is otherwise untouched",
			"After the last attempt the dead-letter topic has the message: same ID, body and headers, and the reason beside them. It does not come again.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.storesDead(), "dead letters that are stored")
				topic := k.topic()
				dead := k.readDead(topic)
				c := k.config("g")
				c.Retry = every(time.Second, 3)
				r := k.run(topic, c, func(context.Context, *messaging.Message) error { return errNo })
				k.publish(&messaging.Message{ID: "x", Topic: topic, Key: "key", Header: messaging.Header{"tenant": "a"}, Body: []byte{1, 0, 2}})
				got := dead.await(1, time.Minute)[0].m
				want(k, "ID", got.ID, "x")
				want(k, "Key", got.Key, "key")
				want(k, "Body", got.Body, []byte{1, 0, 2})
				for key, value := range map[string]string{
					"tenant": "a", "tandem-dead-reason": "attempts", "tandem-dead-attempts": "3", "tandem-dead-topic": topic,
					"tandem-dead-group": "g", "tandem-dead-error": "no: a line and another",
				} {
					want(k, "header "+key, got.Header[key], value)
				}
				for key := range maps.Keys(got.Header) {
					if key != "tenant" && !strings.HasPrefix(key, "tandem-dead-") {
						k.Errorf("the dead letter has a header %s of its own", key)
					}
				}
				time.Sleep(5 * lease)
				want(k, "calls", len(r.calls()), 3)
				want(k, "dead letters", len(dead.calls()), 1)
				want(k, "OnDead", len(r.deadLetters()), 1)
			},
		},
		{
			"each group writes its own dead letter",
			"Two groups that give the same message up leave two dead letters: dedupe does not swallow the second.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.storesDead(), "dead letters that are stored")
				topic := k.topic()
				dead := k.readDead(topic)
				reject := func(context.Context, *messaging.Message) error { return messaging.Reject(errNo) }
				k.run(topic, k.config("a"), reject)
				k.run(topic, k.config("b"), reject)
				k.publish(text(topic, "1")...)
				dead.await(2, 10*time.Second)
			},
		},
		{
			"a dead letter can be sent back",
			"Redrive publishes it again under its ID, and dedupe does not swallow it; a second Redrive finds nothing.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.storesDead(), "dead letters that are stored")
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				var mended atomic.Bool
				r := k.run(topic, k.config("g"), func(context.Context, *messaging.Message) error {
					if mended.Load() {
						return nil
					}
					return messaging.Reject(errNo)
				})
				k.publish(&messaging.Message{ID: "x", Topic: topic, Body: []byte("a")})
				k.eventually(10*time.Second, func() bool { return len(r.deadLetters()) == 1 }, func() string { return "a dead letter" })
				time.Sleep(time.Second)
				mended.Store(true)
				for i, moved := range []int{1, 0} {
					report, err := messaging.Redrive(k.Context(), k.h.Subscriber, topic+".dead", k.publisher(), messaging.RedriveConfig{})
					if err != nil {
						k.Fatalf("Redrive: %v", err)
					}
					want(k, fmt.Sprintf("moved by Redrive %d", i+1), report.Moved, moved)
				}
				got := r.await(2, 10*time.Second)
				want(k, "calls", len(got), 2)
				want(k, "ID", got[1].m.ID, "x")
				want(k, "attempt", got[1].attempt, 1)
			},
		},
		{
			"a rejected message is not tried again",
			"Reject, and retry.Permanent, mean a dead letter after one attempt.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				r := k.run(topic, k.config("g"), func(_ context.Context, m *messaging.Message) error {
					if string(m.Body) == "1" {
						return messaging.Reject(errNo)
					}
					return fmt.Errorf("wrapped: %w", retry.Permanent(errNo))
				})
				k.publish(text(topic, "1", "2")...)
				r.await(2, 10*time.Second)
				time.Sleep(5 * lease)
				want(k, "calls", len(r.calls()), 2)
				if k.storesDead() {
					want(k, "dead letters", len(r.deadLetters()), 2)
				}
			},
		},
		{
			"RetryAfter is no attempt",
			"RetryAfter waits as long as it says and uses no attempt up.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Retry = every(time.Second, 1)
				var calls atomic.Int32
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					if calls.Add(1) <= 12 { // more than twice the attempts
						return messaging.RetryAfter(errNo, 6*time.Second)
					}
					return nil
				})
				k.publish(text(topic, "a")...)
				got := r.await(13, 5*time.Minute)
				for i := 1; i < len(got); i++ {
					if gap := got[i].at.Sub(got[i-1].at); gap < 6*time.Second || gap > 8*time.Second {
						k.Errorf("call %d came %v after the one before, want 6s", i+1, gap)
					}
				}
				r.settled()
				want(k, "dead letters", len(r.deadLetters()), 0)
				want(k, "handled", r.c.Stats().Handled, int64(1))
			},
		},
		{
			"a panic is a failure",
			"A handler that panics, or ends its goroutine, fails that message and no other; the dead letter has the stack.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Concurrency, c.Retry = 2, every(time.Second, 2)
				var dead *member
				if k.storesDead() {
					dead = k.readDead(topic)
				}
				r := k.run(topic, c, func(_ context.Context, m *messaging.Message) error {
					switch string(m.Body) {
					case "panic":
						panic("oh")
					case "goexit":
						runtime.Goexit()
					}
					return nil
				})
				k.publish(text(topic, "panic", "goexit", "panic", "goexit")...)
				for i := range 20 {
					k.publish(text(topic, fmt.Sprint(i))...)
				}
				r.await(28, time.Minute)
				time.Sleep(2 * lease)
				want(k, "calls", len(r.calls()), 28)
				if dead == nil {
					return
				}
				for _, s := range dead.await(4, 10*time.Second) {
					if !strings.Contains(s.m.Header["tandem-dead-stack"], "goroutine") {
						k.Errorf("the dead letter of %s has no stack", s.body)
					}
				}
			},
		},
		{
			"what cannot be read is a dead letter at once",
			"Garbage between two good messages is not handled, stops nothing, and is kept.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.h.Garbage != nil, "what is no message")
				topic := k.topic()
				r := k.run(topic, k.config("g"), nil)
				k.publish(text(topic, "1")...)
				k.h.Garbage(k.T, topic)
				k.publish(text(topic, "2")...)
				r.await(2, 10*time.Second)
				time.Sleep(3 * lease)
				want(k, "calls", len(r.calls()), 2)
				if k.storesDead() {
					want(k, "reason", r.deadLetter().Reason, "malformed")
				}
			},
		},
		{
			"a message that ends its process is not run for ever",
			"Deliveries without a verdict are counted by the transport; beyond twice the attempts the message is a dead letter, unrun.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Attempts == messaging.AttemptsBroker, "a transport that counts deliveries")
				topic := k.topic()
				k.publish(text(topic, "poison")...)
				for i := range 4 {
					sub := k.open(topic, "g")
					d := k.receive(sub)
					want(k, "attempt", d.Message.Attempt, i+1)
					k.close(sub) // without a verdict, as a crash would
					time.Sleep(lease + time.Second)
				}
				c := k.config("g")
				c.Retry = every(time.Second, 2)
				r := k.run(topic, c, nil)
				time.Sleep(2 * lease)
				want(k, "calls", len(r.calls()), 0)
				if k.storesDead() {
					want(k, "reason", r.deadLetter().Reason, "crashed")
				}
			},
		},
	}
}
