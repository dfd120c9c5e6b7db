package messagingtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// headers are the portable rules, good and bad; every transport gives the same answers.
var headers = []struct {
	key, value string
	ok         bool
}{
	{"a", "b", true},
	{"a-b-1", "value", true},
	{"0", "1", true},
	{"-", "-", true},
	{strings.Repeat("k", 128), "v", true},
	{"empty", "", true},
	{"inner", "a b  c", true},
	{"quotes", `"a", b; c=d`, true},
	{"colon", "a: b", true},
	{"percent", "100% %41", true},
	{"plus", "a+b&c=d", true},
	{"utf8", "grüße, 世界 🎉", true},
	{"long", strings.Repeat("v", 4000), true},
	{"content-type", "text/plain; charset=utf-8", true},
	{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true},
	{"ce-subject", "x", true},

	{"", "v", false},
	{"Upper", "v", false},
	{"a b", "v", false},
	{"a:b", "v", false},
	{"a_b", "v", false},
	{"a.b", "v", false},
	{"ü", "v", false},
	{"a\n", "v", false},
	{strings.Repeat("k", 129), "v", false},
	{"ce-id", "v", false},
	{"nats-msg-id", "v", false},
	{"tandem-attempt", "v", false},
	{"lead", " v", false},
	{"trail", "v ", false},
	{"tab", "a\tb", false},
	{"line", "a\nb", false},
	{"return", "a\rb", false},
	{"zero", "a\x00b", false},
	{"delete", "a\x7fb", false},
	{"c1", "a\u0085b", false},
	{"nbsp", "\u00a0v", false},
	{"separator", "a\u2028b", false},
	{"invalid", "a\xffb", false},
}

func publishing() []rule {
	return []rule{
		{
			"headers are portable",
			"Every transport accepts the same headers and refuses the same ones; what it accepts arrives unchanged.",
			func(k *kit) {
				topic := k.topic()
				r := k.run(topic, messaging.ConsumerConfig{Concurrency: 1}, nil)
				p, received := k.publisher(), 0
				for _, h := range headers {
					m := &messaging.Message{Topic: topic, Header: messaging.Header{h.key: h.value}}
					err := p.Publish(k.Context(), m)
					if !h.ok {
						if !errors.Is(err, messaging.ErrInvalid) {
							k.Errorf("header %.20q: %.20q: got %v, want ErrInvalid", h.key, h.value, err)
						}
						continue
					}
					if err != nil {
						k.Errorf("header %.20q: %.20q: %v", h.key, h.value, err)
						continue
					}
					received++
					got := r.await(received, 10*time.Second)[received-1].m
					want(k, "headers", got.Header, m.Header)
				}
			},
		},
		{
			"zero values work",
			"A message with nothing but a topic is published and received; its body is empty, its ID, Time and Source are made.",
			func(k *kit) {
				topic := k.topic()
				r := k.run(topic, messaging.ConsumerConfig{}, nil)
				m := &messaging.Message{Topic: topic}
				k.publish(m, &messaging.Message{Topic: topic, Body: []byte{}})
				got := r.await(2, 10*time.Second)
				for _, s := range got {
					want(k, "body", len(s.m.Body), 0)
					if s.m.ID == "" || s.m.Time.IsZero() || s.m.Source == "" {
						k.Errorf("ID %q, Time %v, Source %q: not all are made", s.m.ID, s.m.Time, s.m.Source)
					}
				}
				if m.ID == "" || got[0].m.ID == got[1].m.ID {
					k.Errorf("IDs %q and %q, published as %q", got[0].m.ID, got[1].m.ID, m.ID)
				}
			},
		},
		{
			"what was received can be published",
			"A message that came can be handed on as it is: Attempt, Group and Cursor are not a publisher's, and do not travel.",
			func(k *kit) {
				one, other := k.topic(), k.topic()
				a, b := k.run(one, messaging.ConsumerConfig{}, nil), k.run(other, messaging.ConsumerConfig{}, nil)
				k.publish(&messaging.Message{Topic: one, Key: "k", Header: messaging.Header{"ce-subject": "x y", "content-type": "a/b"}})
				m := *a.await(1, 10*time.Second)[0].m
				m.Topic, m.Attempt, m.Group = other, 7, "seven"
				k.publish(&m)
				got := b.await(1, 10*time.Second)[0].m
				want(k, "attempt and group", fmt.Sprintf("%d %q", got.Attempt, got.Group), `1 ""`)
				want(k, "ID", got.ID, m.ID)
				want(k, "headers", got.Header, m.Header)
			},
		},
		{
			"topics have one grammar",
			"What is no topic is refused at publish and at construction, by every transport alike.",
			func(k *kit) {
				p := k.publisher()
				for _, name := range []string{"", ".", "a.", ".a", "a..b", "a b", "a/b", "a*", "a.>", "ü", "a\n", strings.Repeat("x", 201)} {
					if err := p.Publish(k.Context(), &messaging.Message{Topic: name}); !errors.Is(err, messaging.ErrInvalid) {
						k.Errorf("publish to topic %.20q: got %v, want ErrInvalid", name, err)
					}
					if err := k.newConsumer(name, messaging.ConsumerConfig{}); !errors.Is(err, messaging.ErrInvalid) {
						k.Errorf("consume topic %.20q: got %v, want ErrInvalid", name, err)
					}
				}
			},
		},
		{
			"an unknown topic is an error",
			"Publishing to a topic that was never made is ErrUnknownTopic, and so is consuming it: not a silent success.",
			func(k *kit) {
				k.needs(k.h.Unknown != "", "a topic that does not exist")
				err := k.publisher().Publish(k.Context(), &messaging.Message{Topic: k.h.Unknown})
				if !errors.Is(err, messaging.ErrUnknownTopic) {
					k.Errorf("Publish: got %v, want ErrUnknownTopic", err)
				}
				c, err := messaging.NewConsumer(k.h.Subscriber, k.h.Unknown, func(context.Context, *messaging.Message) error { return nil },
					messaging.ConsumerConfig{})
				if err != nil {
					k.Fatalf("NewConsumer: %v", err)
				}
				if err := c.Run(k.Context()); !errors.Is(err, messaging.ErrUnknownTopic) {
					k.Errorf("Run: got %v, want ErrUnknownTopic", err)
				}
			},
		},
		{
			"a message that is too large is named",
			"Of several messages the one over the limit is named, with its size and the limit; the others are stored.",
			func(k *kit) {
				k.needs(0 < k.f.MaxBytes && k.f.MaxBytes <= 64<<20, "a limit that a test can reach")
				topic := k.topic()
				r := k.run(topic, messaging.ConsumerConfig{}, nil)
				m := text(topic, "1", "2", "3")
				m[1].Body = make([]byte, k.f.MaxBytes+1)
				err := k.publisher().Publish(k.Context(), m...)
				pe, ok := errors.AsType[*messaging.PublishError](err)
				if !ok || len(pe.Failed) != 1 || pe.Failed[0].Index != 1 || pe.Failed[0].Unknown {
					k.Fatalf("Publish: got %v, want message 1 not stored", err)
				}
				large, ok := errors.AsType[*messaging.TooLargeError](err)
				if !ok || large.Limit != k.f.MaxBytes || large.Size <= large.Limit {
					k.Errorf("got %v, want a TooLargeError with the limit %d", err, k.f.MaxBytes)
				}
				r.await(2, 10*time.Second)
			},
		},
		{
			"one ID is stored once within the window",
			"A second publish of one ID to one topic is dropped where Dedupe is promised. The same ID on another topic, or of another source, is another message.",
			func(k *kit) {
				one, other := k.topic(), k.topic()
				a, b := k.run(one, messaging.ConsumerConfig{}, nil), k.run(other, messaging.ConsumerConfig{}, nil)
				for _, topic := range []string{one, one, other} {
					k.publish(&messaging.Message{ID: "same", Topic: topic})
				}
				b.await(1, 10*time.Second)
				n := 2
				if k.f.Dedupe > 0 {
					n = 1
				}
				a.await(n, 10*time.Second)
				time.Sleep(time.Second)
				want(k, "stored", fmt.Sprint(len(a.calls()), len(b.calls())), fmt.Sprint(n, 1))
				k.publish(&messaging.Message{ID: "same", Source: "/another", Topic: one})
				a.await(n+1, 10*time.Second)
			},
		},
		{
			"NotBefore is kept, or refused",
			"A scheduled message comes at its time or a little later, never earlier; where that is not promised, Publish refuses it.",
			func(k *kit) {
				topic := k.topic()
				at := time.Now().Add(90*time.Second + 777*time.Millisecond)
				m := &messaging.Message{Topic: topic, NotBefore: at, Body: []byte("later")}
				if k.f.Schedule < 2*time.Minute {
					k.refused("NotBefore", k.publisher().Publish(k.Context(), m))
					return
				}
				c := messaging.ConsumerConfig{}
				if k.f.Groups {
					c = k.config("g")
				}
				r := k.run(topic, c, nil)
				k.publish(m)
				k.publish(text(topic, "now")...)
				got := r.await(2, 3*time.Minute)
				want(k, "order", r.bodies(), []string{"now", "later"})
				if late := got[1].at.Sub(at); late < 0 || late > time.Second {
					k.Errorf("it came %v after its time", late)
				}
			},
		},
		{
			"the publisher's promise is the sender's",
			"A Sender that confirms nothing is refused unless AtMostOnce asks for it.",
			func(k *kit) {
				_, err := messaging.NewPublisher(k.h.Sender, messaging.PublisherConfig{})
				if k.h.Sender.Features().Confirm == messaging.ConfirmNone {
					k.refused("a confirmation", err)
				} else if err != nil {
					k.Errorf("NewPublisher: %v", err)
				}
			},
		},
		{
			"publishing ends with its context",
			"A Publish whose context has ended returns promptly, with an error that has the cause.",
			func(k *kit) {
				cause := errors.New("enough")
				ctx, cancel := context.WithCancelCause(k.Context())
				cancel(cause)
				began := time.Now()
				err := k.publisher().Publish(ctx, text(k.topic(), "a")...)
				if took := time.Since(began); took > time.Second {
					k.Errorf("it took %v", took)
				}
				if err != nil && !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
					k.Errorf("Publish: got %v, want the cause", err)
				}
			},
		},
	}
}
