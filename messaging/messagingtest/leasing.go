package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

func leasing() []rule {
	return []rule{
		{
			"leases are kept alive",
			"A handler that takes five leases runs once, and so do the messages fetched and waiting behind it.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.Concurrency, c.Buffer = 2, 4
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					time.Sleep(5 * lease)
					return nil
				})
				k.publish(text(topic, "1", "2", "3", "4", "5", "6")...)
				r.await(6, 30*lease)
				time.Sleep(10 * lease)
				want(k, "calls", len(r.calls()), 6)
				want(k, "late verdicts", r.c.Stats().Late, int64(0))
			},
		},
		{
			"a lost lease ends the handler's context",
			"When the transport takes a message back, the handler's context ends with ErrLeaseLost and its verdict is not sent.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.h.Expire != nil, "a lease that can be made to pass")
				topic := k.topic()
				causes := make(chan error, 10)
				r := k.run(topic, k.config("g"), func(ctx context.Context, m *messaging.Message) error {
					if m.Attempt > 1 {
						return nil
					}
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return nil
				})
				k.publish(text(topic, "a")...)
				r.await(1, 10*time.Second)
				k.h.Expire(k.T)
				select {
				case err := <-causes:
					if !errors.Is(err, messaging.ErrLeaseLost) {
						k.Errorf("cause: got %v, want ErrLeaseLost", err)
					}
				case <-time.After(3 * lease):
					k.Fatal("the handler was not told")
				}
				r.await(2, 3*lease)
				r.settled()
				want(k, "late verdicts", r.c.Stats().Late, int64(1))
			},
		},
		{
			"a lease that passes brings the message back",
			"A message that is not settled comes again when its lease has passed, to another member, with Attempt one higher.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Lease, "leases")
				topic := k.topic()
				k.publish(text(topic, "1")...)
				sub := k.open(topic, "g")
				taken := time.Now()
				k.receive(sub)
				k.close(sub)
				r := k.run(topic, k.config("g"), nil)
				got := r.await(1, 3*lease)[0]
				if after := got.at.Sub(taken); after < lease-time.Second || after > lease+2*time.Second {
					k.Errorf("it came back after %v, want %v", after, lease)
				}
				if k.f.Attempts == messaging.AttemptsBroker {
					want(k, "attempt", got.attempt, 2)
				}
			},
		},
		{
			"a handler has its time",
			"When HandleTimeout is over the handler's context ends, and its error is a failure like any other.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				c := k.config("g")
				c.HandleTimeout, c.Retry = lease/2, every(time.Second, 2)
				causes := make(chan error, 10)
				r := k.run(topic, c, func(ctx context.Context, _ *messaging.Message) error {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return ctx.Err()
				})
				k.publish(text(topic, "a")...)
				r.await(2, 5*lease)
				time.Sleep(3 * lease)
				want(k, "calls", len(r.calls()), 2)
				for range 2 {
					if err := <-causes; !errors.Is(err, context.DeadlineExceeded) {
						k.Errorf("cause: got %v, want context.DeadlineExceeded", err)
					}
				}
			},
		},
	}
}

func draining() []rule {
	return []rule{
		{
			"a drain lets handlers finish",
			"When Run's context ends, a running handler keeps a living context, its verdict is sent, and it does not run again.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				var ended error
				r := k.run(topic, k.config("g"), func(ctx context.Context, _ *messaging.Message) error {
					time.Sleep(2 * lease)
					ended = ctx.Err()
					return nil
				})
				k.publish(text(topic, "a")...)
				r.await(1, 10*time.Second)
				if err := r.stop(); err != nil {
					k.Errorf("Run: %v", err)
				}
				want(k, "the handler's context", ended, nil)
				again := k.run(topic, k.config("g"), nil)
				time.Sleep(3 * lease)
				want(k, "calls of the next member", len(again.calls()), 0)
			},
		},
		{
			"a drain hands back what has not started",
			"Messages that were fetched and not begun are with another member at once, not after their lease.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				c := k.config("g")
				c.Concurrency, c.Buffer = 1, 4
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					time.Sleep(2 * lease)
					return nil
				})
				k.publish(text(topic, "1", "2", "3", "4", "5")...)
				r.await(1, 10*time.Second)
				time.Sleep(time.Second)
				other := k.run(topic, k.config("g"), nil)
				r.cancel()
				other.await(4, time.Second)
				if err := r.stop(); err != nil {
					k.Errorf("Run: %v", err)
				}
				time.Sleep(3 * lease)
				want(k, "calls", fmt.Sprint(len(r.calls()), len(other.calls())), "1 4")
			},
		},
		{
			"the end of Run does not take a verdict back",
			"A handler that ends Run's context and returns nil has handled its message.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				topic := k.topic()
				var r *member
				started := make(chan struct{})
				r = k.run(topic, k.config("g"), func(context.Context, *messaging.Message) error {
					<-started
					r.cancel()
					return nil
				})
				close(started)
				k.publish(text(topic, "a")...)
				r.await(1, 10*time.Second)
				if err := r.stop(); err != nil {
					k.Errorf("Run: %v", err)
				}
				again := k.run(topic, k.config("g"), nil)
				time.Sleep(3 * lease)
				want(k, "calls of the next member", len(again.calls()), 0)
			},
		},
		{
			"a shutdown is no failure",
			"A handler cut short at the end of the drain has used no attempt up: its message goes to the next member.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				c := k.config("g")
				c.DrainTimeout, c.Retry = lease, every(time.Second, 1)
				r := k.run(topic, c, func(ctx context.Context, _ *messaging.Message) error {
					<-ctx.Done()
					if cause := context.Cause(ctx); !errors.Is(cause, messaging.ErrDraining) {
						k.Errorf("cause: got %v, want ErrDraining", cause)
					}
					return ctx.Err()
				})
				k.publish(text(topic, "a")...)
				r.await(1, 10*time.Second)
				if err := r.stop(); err != nil {
					k.Errorf("Run: %v", err)
				}
				want(k, "dead letters", len(r.deadLetters()), 0)
				k.run(topic, k.config("g"), nil).await(1, time.Second)
			},
		},
		{
			"a stuck handler is counted",
			"Run does not wait for ever: it says how many handlers are still running, and their messages go to the next member.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				c := k.config("g")
				c.DrainTimeout = lease
				block := make(chan struct{})
				defer close(block)
				r := k.run(topic, c, func(context.Context, *messaging.Message) error {
					<-block
					return nil
				})
				k.publish(text(topic, "a")...)
				r.await(1, 10*time.Second)
				if err := r.stop(); !errors.Is(err, messaging.ErrDraining) {
					k.Errorf("Run: got %v, want ErrDraining", err)
				}
				k.run(topic, k.config("g"), nil).await(1, time.Second)
			},
		},
		{
			"rolling restarts use no attempts up",
			"A message that waits for its retry survives ten restarts of its consumer and is no dead letter for that.",
			func(k *kit) {
				if !k.needGroups() {
					return
				}
				k.needs(k.f.Durable, "a group that keeps its place")
				topic := k.topic()
				c := k.config("g")
				c.Concurrency, c.Buffer = 1, 1
				k.publish(text(topic, "first", "second")...)
				dead := 0
				for range 5 {
					r := k.run(topic, c, func(ctx context.Context, m *messaging.Message) error {
						if string(m.Body) == "second" {
							return nil
						}
						return messaging.RetryAfter(errNo, time.Hour)
					})
					time.Sleep(time.Second)
					if err := r.stop(); err != nil {
						k.Errorf("Run: %v", err)
					}
					dead += len(r.deadLetters())
				}
				want(k, "dead letters", dead, 0)
			},
		},
	}
}
