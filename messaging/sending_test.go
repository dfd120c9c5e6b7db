package messaging_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// A Sender that fails and names nobody, or somebody who is not there, has not stored what it was given.
func TestAnErrorThatNamesNobodyIsNoSuccess(t *testing.T) {
	for _, f := range [][]messaging.Failure{nil, {{Index: 7, Err: errBroker}}, {{Index: -1, Err: errBroker}}} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: func(int, []*messaging.Message) error { return failed(f...) }}
			err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), bodies("orders", "a", "b")...)
			pe, is := errors.AsType[*messaging.PublishError](err)
			require.True(t, is)
			require.Len(t, pe.Failed, 2)
			for i, f := range pe.Failed {
				require.Equal(t, i, f.Index)
				require.True(t, f.Unknown)
				require.Error(t, f.Err)
			}
		})
	}
}

// A topic that hangs takes neither the time of another one nor its good name.
func TestATopicThatHangsHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &perTopic{send: func(ctx context.Context, topic string) error {
			if topic == "sick" {
				<-ctx.Done()
			}
			return ctx.Err()
		}}
		err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), message("sick", "", "a"), message("well", "", "b"))
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.Len(t, pe.Failed, 1)
		require.Equal(t, 0, pe.Failed[0].Index)
	})
}

// Callers in a hurry do not open the breaker for the others.
func TestACallerInAHurryIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &perTopic{send: func(ctx context.Context, _ string) error {
			select {
			case <-time.After(100 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		p := publisher(t, s, messaging.PublisherConfig{Retry: retry.Never()})
		for range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			require.Error(t, p.Publish(ctx, message("orders", "", "a")))
			cancel()
		}
		require.NoError(t, p.Publish(t.Context(), message("orders", "", "a")))
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 310*time.Millisecond)
			s.send = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			require.Error(t, p.Publish(ctx, message("orders", "", "a")))
			cancel()
		}
		require.ErrorIs(t, p.Publish(t.Context(), message("orders", "", "a")), breaker.ErrOpen)
	})
}

// The attempt that opens the breaker is not followed by one that it refuses: the caller sees what the transport said.
func TestTheFailureThatOpensTheBreakerIsTheOneToSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breakers, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Consecutive: 2, OpenFor: time.Minute}})
		require.NoError(t, err)
		s := &scripted{answer: func(int, []*messaging.Message) error { return failed(messaging.Failure{Err: errBroker}) }}
		err = publisher(t, s, messaging.PublisherConfig{Breakers: breakers}).Publish(t.Context(), message("orders", "", "a"))
		require.ErrorIs(t, err, errBroker)
		require.NotErrorIs(t, err, breaker.ErrOpen)
		require.Len(t, s.calls, 2)
	})
}

// One topic's open breaker does not make the others wait for it.
func TestAnOpenBreakerOfOneTopicDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := &perTopic{send: func(_ context.Context, topic string) error {
			if topic == "sick" {
				return failed(messaging.Failure{Err: errBroker})
			}
			if calls++; calls == 1 {
				return failed(messaging.Failure{Err: errBroker})
			}
			return nil
		}}
		p := publisher(t, s, messaging.PublisherConfig{})
		for range 4 {
			require.Error(t, p.Publish(t.Context(), message("sick", "", "a")))
		}
		began := time.Now()
		err := p.Publish(t.Context(), message("sick", "", "a"), message("well", "", "b"))
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.Len(t, pe.Failed, 1)
		require.Less(t, time.Since(began), time.Second)
	})
}

// A Sender that panics takes no probe of the breaker with it.
func TestASenderThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breakers, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Probes: 1, Consecutive: 1}})
		require.NoError(t, err)
		s := &perTopic{send: func(context.Context, string) error { panic("oh") }}
		p := publisher(t, s, messaging.PublisherConfig{Breakers: breakers})
		breakers.Get("orders").Trip(time.Second)
		pass(2 * time.Second)
		require.Panics(t, func() { _ = p.Publish(t.Context(), message("orders", "", "a")) })
		s.send = func(context.Context, string) error { return nil }
		require.NoError(t, p.Publish(t.Context(), message("orders", "", "a")))
	})
}

func TestATransactionThatHasEnded(t *testing.T) {
	s := &inTx{send: func(context.Context) error { t.Error("it was asked"); return nil }}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errNo)
	require.ErrorIs(t, publisher(t, s, messaging.PublisherConfig{}).Publish(ctx, message("orders", "", "a")), errNo)
}

type perTopic struct {
	send func(ctx context.Context, topic string) error
}

func (*perTopic) Features() messaging.Features {
	return messaging.Features{Confirm: messaging.ConfirmBroker}
}

func (s *perTopic) Send(ctx context.Context, m []*messaging.Message) error {
	return s.send(ctx, m[0].Topic)
}

// A failing assertion in a done must not leave the others, and Flush, without an answer.
func TestADoneThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := publisher(t, &scripted{}, messaging.PublisherConfig{})
		var answered atomic.Int32
		for range 5 {
			require.NoError(t, p.Go(t.Context(), message("orders", "", "a"), func(error) {
				answered.Add(1)
				goexit()
			}))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, p.Flush(ctx))
		require.Equal(t, int32(5), answered.Load())
	})
}

func TestGoUnderAnEndedContext(t *testing.T) {
	s := &scripted{}
	p := publisher(t, s, messaging.PublisherConfig{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errNo)
	require.ErrorIs(t, p.Go(ctx, message("orders", "", "a"), func(error) { t.Error("done of a message that Go refused") }), errNo)
	require.NoError(t, p.Flush(t.Context()))
	require.Empty(t, s.calls)
}

// A message that is refused is left as it was, so that it can be mended.
func TestARefusedMessageIsLeftAlone(t *testing.T) {
	p := publisher(t, &scripted{}, messaging.PublisherConfig{})
	m := message("or ders", "", "a")
	require.ErrorIs(t, p.Publish(t.Context(), m), messaging.ErrInvalid)
	require.Equal(t, message("or ders", "", "a"), m)
	m.Topic = "orders"
	require.NoError(t, p.Publish(t.Context(), m))
	require.Equal(t, "/orders", m.Source)
}

// Times travel as RFC 3339, which has four digits for a year.
func TestATimeThatCannotTravel(t *testing.T) {
	p := publisher(t, &scripted{}, messaging.PublisherConfig{})
	for _, year := range []int{-1, 10_000, 300_000} {
		m := message("orders", "", "a")
		m.Time = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		require.ErrorIs(t, p.Publish(t.Context(), m), messaging.ErrInvalid)
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		m := message("orders", "", "a")
		m.Time = at
		require.NoError(t, p.Publish(t.Context(), m))
	}
}

// CloudEvents: an ID is unique for its source, not for a topic. Two producers that count from one lose nothing.
func TestTheIDForDeduplicationNamesTheSource(t *testing.T) {
	id := func(topic, source, id string) string {
		return messaging.DedupeID(&messaging.Message{Topic: topic, Source: source, ID: id})
	}
	require.Equal(t, "orders/1", id("orders", "/orders", "1"), "on the wire since the first release")
	all := map[string]bool{}
	for _, m := range [][3]string{
		{"a", "", "1"}, {"a", "/a", "1"}, {"a", "/b", "1"}, {"a", "/b/1", "2"}, {"a", "/b", "1/2"}, {"b", "/b", "1"}, {"a", "3:/b/1", "2"},
	} {
		all[id(m[0], m[1], m[2])] = true
	}
	require.Len(t, all, 6, "all but the first two, which have the source that Publish gives")
	dead := func(source string) string {
		return messaging.DedupeID(&messaging.Message{Topic: "a.dead", Source: source, ID: "1", Header: messaging.Header{
			"tandem-dead-topic": "a", "tandem-dead-group": "g",
		}})
	}
	require.NotEqual(t, dead("/b"), dead("/c"))
}
