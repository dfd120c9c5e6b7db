package messaging_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

func TestRedriveSendsDeadLettersBackWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var mended atomic.Bool
		var got []*messaging.Message
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(_ context.Context, m *messaging.Message) error {
			if !mended.Load() {
				return messaging.Reject(errNo)
			}
			got = append(got, m)
			return nil
		})
		p := publisher(t, b, messaging.PublisherConfig{})
		m := message("orders", "key", "a")
		m.ID, m.Header = "the-id", messaging.Header{"tenant": "x"}
		require.NoError(t, p.Publish(t.Context(), m))
		pass(time.Second)
		require.Equal(t, int64(1), r.Stats().Dead)

		// Once more in vain: it dies again, and the second dead letter is not sent back by the same call.
		report, err := messaging.Redrive(t.Context(), b, "orders.dead", p, messaging.RedriveConfig{})
		require.NoError(t, err)
		require.Equal(t, messaging.RedriveReport{Moved: 1, Skipped: 1}, report)
		require.Equal(t, int64(2), r.Stats().Dead)

		mended.Store(true)
		report, err = messaging.Redrive(t.Context(), b, "orders.dead", p, messaging.RedriveConfig{})
		require.NoError(t, err)
		require.Equal(t, messaging.RedriveReport{Moved: 1}, report)
		pass(time.Second)
		require.Len(t, got, 1, "inside of the dedupe window")
		require.Equal(t, "the-id", got[0].ID)
		require.Equal(t, "key", got[0].Key)
		require.Equal(t, "a", string(got[0].Body))
		require.Equal(t, 1, got[0].Attempt)
		require.Equal(t, messaging.Header{"tenant": "x", "tandem-dead-redriven": "2"}, got[0].Header)

		report, err = messaging.Redrive(t.Context(), b, "orders.dead", p, messaging.RedriveConfig{})
		require.NoError(t, err)
		require.Equal(t, messaging.RedriveReport{}, report)
	})
}

func TestRedriveKeepsItsRateAndItsFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		dead := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error { return messaging.Reject(errNo) })
		for i := range 200 {
			publish(t, b, message("orders", "", fmt.Sprint([]string{"bad", "good"}[i%2], i)))
		}
		pass(time.Second)
		require.NoError(t, dead.stop())
		good := func(m *messaging.Message) bool { return strings.HasPrefix(string(m.Body), "good") }
		began := time.Now()
		report, err := messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}),
			messaging.RedriveConfig{Rate: 10, Filter: good})
		require.NoError(t, err)
		require.Equal(t, messaging.RedriveReport{Moved: 100, Skipped: 100}, report)
		require.InDelta(t, 10+3, time.Since(began).Seconds(), 0.5)

		report, err = messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}),
			messaging.RedriveConfig{Most: 30})
		require.NoError(t, err)
		require.Equal(t, messaging.RedriveReport{Moved: 30}, report, "what was skipped is still there")
	})
}

func TestRedriveLosesNothingWhenItCannotPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error { return messaging.Reject(errNo) })
		publish(t, b, bodies("orders", "1", "2", "3")...)
		pass(time.Second)
		require.NoError(t, r.stop())
		sick := &scripted{answer: func(int, []*messaging.Message) error { return failed(messaging.Failure{Err: errBroker}) }}
		report, err := messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, sick, messaging.PublisherConfig{}), messaging.RedriveConfig{})
		require.ErrorIs(t, err, errBroker)
		require.Zero(t, report.Moved)
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer cancel()
		report, err = messaging.Redrive(ctx, b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}), messaging.RedriveConfig{Rate: 1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, report.Moved)
		report, err = messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}), messaging.RedriveConfig{})
		require.NoError(t, err)
		require.Equal(t, 2, report.Moved)
	})
}

func TestRedriveReportsEveryFault(t *testing.T) {
	b := newBus(t, busConfig)
	_, err := messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}),
		messaging.RedriveConfig{Rate: -1, Most: -1, Idle: -1})
	for _, part := range []string{"Rate", "Most", "Idle"} {
		require.ErrorContains(t, err, part)
	}
	core := newScript(messaging.Features{Groups: true})
	_, err = messaging.Redrive(t.Context(), core, "orders.dead", publisher(t, b, messaging.PublisherConfig{}), messaging.RedriveConfig{})
	require.ErrorIs(t, err, messaging.ErrUnsupported)
}

// A rate slower than Idle is a rate, not the end.
func TestRedriveIsNotDoneWhileItIsAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error { return messaging.Reject(errNo) })
		publish(t, b, numbered("orders", 5)...)
		pass(time.Second)
		require.NoError(t, r.stop())
		report, err := messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}),
			messaging.RedriveConfig{Rate: 0.1, Most: 2})
		require.NoError(t, err)
		require.Equal(t, 2, report.Moved)
		slow := &scripted{answer: func(int, []*messaging.Message) error {
			time.Sleep(5 * time.Second)
			return nil
		}}
		report, err = messaging.Redrive(t.Context(), b, "orders.dead",
			publisher(t, slow, messaging.PublisherConfig{AttemptTimeout: messaging.NoTimeout, Timeout: messaging.NoTimeout}), messaging.RedriveConfig{})
		require.NoError(t, err)
		require.Equal(t, 3, report.Moved)
	})
}

func TestRedriveRefusesARateThatIsNone(t *testing.T) {
	b := newBus(t, busConfig)
	for _, rate := range []float64{math.NaN(), math.Inf(1), -1} {
		_, err := messaging.Redrive(t.Context(), b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}), messaging.RedriveConfig{Rate: rate})
		require.ErrorContains(t, err, "Rate")
	}
}

// However slow: a rate that no Duration can hold is not none at all.
func TestRedriveAtOnceInAThousandYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error { return messaging.Reject(errNo) })
		publish(t, b, numbered("orders", 5)...)
		pass(time.Second)
		require.NoError(t, r.stop())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		report, err := messaging.Redrive(ctx, b, "orders.dead", publisher(t, b, messaging.PublisherConfig{}), messaging.RedriveConfig{Rate: 1e-11})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, report.Moved)
	})
}
