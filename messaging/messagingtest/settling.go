package messagingtest

import (
	"context"
	"errors"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

func settling() []rule {
	return []rule{
		{
			"a delivery is settled once",
			"A second verdict on one delivery is answered with ErrLeaseLost, or not at all; it changes nothing and does not panic.",
			func(k *kit) {
				k.needLeases()
				topic := k.topic()
				k.publish(text(topic, "1", "2")...)
				sub := k.open(topic, "g")
				d := k.receive(sub)
				k.settle(sub, d, messaging.Done)
				for _, action := range []messaging.Action{messaging.Retry, messaging.Done} {
					k.tooLate(sub, d, action)
				}
				want(k, "the next message", string(k.receive(sub).Message.Body), "2")
				k.close(sub)
			},
		},
		{
			"a verdict is on one delivery",
			"A verdict on an earlier delivery of a message says nothing about the one in hand, which comes again if nobody settles it.",
			func(k *kit) {
				k.needLeases()
				topic := k.topic()
				k.publish(text(topic, "1")...)
				sub := k.open(topic, "g")
				first := k.receive(sub)
				k.settle(sub, first, messaging.Retry)
				k.receive(sub)
				k.tooLate(sub, first, messaging.Done)
				want(k, "the message of the lease that passes", string(k.receive(sub).Message.Body), "1")
				k.close(sub)
			},
		},
		{
			"a verdict after the lease is too late",
			"It is answered with ErrLeaseLost, not with success, and the message comes again.",
			func(k *kit) {
				k.needLeases()
				topic := k.topic()
				k.publish(text(topic, "1")...)
				sub := k.open(topic, "g")
				d := k.receive(sub)
				time.Sleep(lease + time.Second)
				s := []messaging.Settlement{{Ref: d.Ref, Action: messaging.Done}}
				if err := errors.Join(sub.Settle(k.Context(), s), s[0].Err); !errors.Is(err, messaging.ErrLeaseLost) {
					k.Errorf("Settle: got %v, want ErrLeaseLost", err)
				}
				want(k, "the message", string(k.receive(sub).Message.Body), "1")
				k.close(sub)
			},
		},
		{
			"what is refused does not come again",
			"Refuse ends a message as Done does.",
			func(k *kit) {
				k.needLeases()
				topic := k.topic()
				k.publish(text(topic, "1", "2")...)
				sub := k.open(topic, "g")
				k.settle(sub, k.receive(sub), messaging.Refuse)
				d := k.receive(sub)
				want(k, "the next message", string(d.Message.Body), "2")
				k.settle(sub, d, messaging.Done)
				k.nothing(sub, 3*lease)
				k.close(sub)
			},
		},
		{
			"an ended Receive takes nothing with it",
			"What is published after the end of a Receive is with another member at once, though its subscription is still open.",
			func(k *kit) {
				k.needLeases()
				topic := k.topic()
				ended := k.open(topic, "g")
				k.nothing(ended, time.Second)
				k.publish(text(topic, "1")...)
				sub := k.open(topic, "g")
				began := time.Now()
				d := k.receive(sub)
				if after := time.Since(began); after > time.Second {
					k.Errorf("it came after %v", after)
				}
				k.settle(sub, d, messaging.Done)
				k.close(sub)
				k.close(ended)
			},
		},
	}
}

// needLeases asserts the refusal where there are no groups, and skips the case without leases: there is nothing to settle.
func (k *kit) needLeases() {
	k.Helper()
	k.needs(k.needGroups(), "groups, whose refusal was asserted")
	k.needs(k.f.Lease, "leases")
}

// open, receive and the others use a subscription without a consumer.
func (k *kit) open(topic, group string) messaging.Subscription {
	k.Helper()
	return k.openAs(topic, group, false)
}

func (k *kit) openAs(topic, group string, ordered bool) messaging.Subscription {
	k.Helper()
	sub, err := k.h.Subscriber.Open(k.Context(), messaging.Spec{
		Topic: topic, Group: group, Ordered: ordered, Start: messaging.Earliest(), Lease: lease, Slots: 1, Parked: 1,
		MaxBytes: 1 << 20, Report: func(context.Context, messaging.Event) {},
	})
	if err != nil {
		k.Fatalf("Open: %v", err)
	}
	return sub
}

func (k *kit) receive(sub messaging.Subscription) messaging.Delivery {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), 30*time.Second)
	defer cancel()
	into := make([]messaging.Delivery, 1)
	if n, err := sub.Receive(ctx, into); n != 1 || err != nil {
		k.Fatalf("Receive: %d, %v; want one delivery", n, err)
	}
	return into[0]
}

// nothing asserts that nothing comes.
func (k *kit) nothing(sub messaging.Subscription, within time.Duration) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), within)
	defer cancel()
	into := make([]messaging.Delivery, 1)
	n, err := sub.Receive(ctx, into)
	if n > 0 {
		k.Errorf("Receive: %q came, attempt %d; want nothing", into[0].Message.Body, into[0].Message.Attempt)
	} else if !errors.Is(err, context.DeadlineExceeded) {
		k.Errorf("Receive: got %v, want the end of its context", err)
	}
}

func (k *kit) settle(sub messaging.Subscription, d messaging.Delivery, a messaging.Action) {
	k.Helper()
	s := []messaging.Settlement{{Ref: d.Ref, Action: a}}
	if err := errors.Join(sub.Settle(k.Context(), s), s[0].Err); err != nil {
		k.Fatalf("Settle %v: %v", a, err)
	}
}

// tooLate says a verdict that is none any more.
func (k *kit) tooLate(sub messaging.Subscription, d messaging.Delivery, a messaging.Action) {
	k.Helper()
	s := []messaging.Settlement{{Ref: d.Ref, Action: a}}
	if err := errors.Join(sub.Settle(k.Context(), s), s[0].Err); err != nil && !errors.Is(err, messaging.ErrLeaseLost) {
		k.Errorf("Settle %v: got %v, want ErrLeaseLost or nil", a, err)
	}
}

func (k *kit) close(sub messaging.Subscription) {
	k.Helper()
	if err := sub.Close(k.Context()); err != nil {
		k.Fatalf("Close: %v", err)
	}
}
