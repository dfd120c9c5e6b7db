package messaging_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

// Trap: a dependency that is down for an hour makes dead letters of the whole queue.
func TestAnOutageDoesNotEmptyTheQueueIntoDeadLetters(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, busConfig)
				var up atomic.Bool
				var events []messaging.EventKind
				r := run(t, b, messaging.ConsumerConfig{
					Group: "g", Ordered: ordered,
					OnEvent: func(_ context.Context, e messaging.Event) { events = append(events, e.Kind) },
				}, func(context.Context, *messaging.Message) error {
					if !up.Load() {
						return errNo
					}
					return nil
				})
				for i := range 100 {
					var m []*messaging.Message
					for j := range 100 {
						m = append(m, message("orders", fmt.Sprint(i, ".", j), "x"))
					}
					publish(t, b, m...)
				}
				pass(time.Hour)
				calls := len(r.saw())
				require.Less(t, calls, 10+16+60*60/15+20, "one probe in half a minute, less the first ones")
				require.Greater(t, calls, 10+60)
				up.Store(true)
				pass(10 * time.Minute)
				s := r.Stats()
				require.LessOrEqual(t, s.Dead, int64(25), "of ten thousand")
				require.Equal(t, int64(10_000), s.Handled+s.Dead)
				require.Equal(t, []messaging.EventKind{messaging.Slowed, messaging.Resumed}, events)
				require.NoError(t, r.stop())
			})
		})
	}
}

// Messages that come slowly are no queue, and an outage is one all the same.
func TestAnOutageWhileFewMessagesCome(t *testing.T) {
	for every, most := range map[time.Duration]int64{time.Second: 20, 30 * time.Second: 30} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, busConfig)
				down := time.Now().Add(time.Hour)
				r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
					if time.Now().Before(down) {
						return errNo
					}
					return nil
				})
				for i := range 100 {
					publish(t, b, message("orders", fmt.Sprint(i), "x"))
					pass(every)
				}
				pass(3 * time.Hour)
				s := r.Stats()
				require.Equal(t, int64(100), s.Handled+s.Dead)
				require.LessOrEqual(t, s.Dead, most)
				t.Logf("%d of 100 given up", s.Dead)
				require.NoError(t, r.stop())
			})
		})
	}
}

// The redeploy of a dependency costs no message.
func TestARedeployCostsNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // delays are drawn
			b := newBus(t, busConfig)
			up := time.Now().Add(15 * time.Second)
			r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
				if time.Now().Before(up) {
					return errNo
				}
				return nil
			})
			publish(t, b, message("orders", "", "x"))
			pass(10 * time.Minute)
			require.Equal(t, int64(1), r.Stats().Handled)
			require.NoError(t, r.stop())
		}
	})
}

// Failures among successes are no outage.
func TestPoisonAmongGoodMessagesDoesNotBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g"}, func(_ context.Context, m *messaging.Message) error {
			if string(m.Body) == "bad" {
				return errNo
			}
			return nil
		})
		for range 200 {
			publish(t, b, bodies("orders", "bad", "good")...)
		}
		pass(time.Minute)
		require.Equal(t, int64(200), r.Stats().Handled)
		pass(time.Hour)
		require.Equal(t, int64(200), r.Stats().Dead)
	})
}

// Trap: the probe neither fails nor succeeds, and nobody sets the time of the next one.
func TestAProbeThatIsToldToWaitStallsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		calls := 0
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Concurrency: 1, Retry: every(time.Second, 1)},
			func(context.Context, *messaging.Message) error {
				switch calls++; {
				case calls <= 10:
					return errNo
				case calls == 11:
					return messaging.RetryAfter(errNo, 10*time.Hour)
				default:
					return nil
				}
			})
		publish(t, b, numbered("orders", 100)...)
		pass(5 * time.Minute)
		require.Equal(t, int64(89), r.Stats().Handled)
		require.NoError(t, r.stop())
	})
}

// Messages that were lost say nothing of what their handlers need.
func TestLostLeasesAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var events []messaging.EventKind
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g", Concurrency: 100,
			OnEvent: func(_ context.Context, e messaging.Event) { events = append(events, e.Kind) },
		}, func(ctx context.Context, m *messaging.Message) error {
			if m.Attempt > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		publish(t, b, numbered("orders", 100)...)
		pass(time.Second)
		b.Inject(membus.Fault{ExpireLeases: true})
		pass(time.Minute)
		require.Equal(t, int64(100), r.Stats().Handled)
		require.Empty(t, events)
	})
}
