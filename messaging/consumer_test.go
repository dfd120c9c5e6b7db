package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

var busConfig membus.Config

var errNo = errors.New("no")

func no(context.Context, *messaging.Message) error { return errNo }

func TestNewConsumerReportsEveryFault(t *testing.T) {
	_, err := messaging.NewConsumer(newBus(t, busConfig), "a..b", ok, messaging.ConsumerConfig{
		Group: "a.b", Concurrency: -1, Buffer: -1, BufferBytes: -1, Lease: -1, HandleTimeout: -1, MaxAge: -1, DrainTimeout: -1,
		Retry: retry.Policy{MaxAttempts: -1},
		Use: []messaging.Middleware{func(messaging.Handler, messaging.ConsumerInfo) (messaging.Handler, error) {
			return nil, errNo
		}},
	})
	for _, part := range []string{
		"topic", "group", "Concurrency", "Buffer ", "BufferBytes", "Lease", "HandleTimeout", "MaxAge", "DrainTimeout", "Retry",
	} {
		require.ErrorContains(t, err, part)
	}
	require.ErrorIs(t, err, errNo)

	for _, c := range []messaging.ConsumerConfig{{Group: "g", DeadLetter: "orders.dead"}, {Group: "g"}} {
		_, err = messaging.NewConsumer(newBus(t, busConfig), "orders.dead", ok, c)
		require.ErrorContains(t, err, "DeadLetter")
	}
}

func TestMiddlewareWrapsOneAttemptTheFirstOutermost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var order []string
		wrap := func(name string) messaging.Middleware {
			return func(next messaging.Handler, in messaging.ConsumerInfo) (messaging.Handler, error) {
				require.Equal(t, "orders g 10 30s", fmt.Sprint(in.Topic, " ", in.Group, " ", in.Retry.MaxAttempts, " ", in.Lease))
				return func(ctx context.Context, m *messaging.Message) error {
					order = append(order, name)
					return next(ctx, m)
				}, nil
			}
		}
		run(t, b, messaging.ConsumerConfig{Group: "g", Use: []messaging.Middleware{wrap("outer"), wrap("inner")}},
			func(_ context.Context, m *messaging.Message) error {
				if m.Attempt == 1 {
					return errNo
				}
				return nil
			})
		publish(t, b, message("orders", "", "a"))
		pass(time.Minute)
		require.Equal(t, []string{"outer", "inner", "outer", "inner"}, order)
	})
}

// What is told is what is waited, and the waits are those of the policy and no others.
func TestTheScheduleOfRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var told []time.Duration
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g", Retry: retry.Policy{MaxAttempts: 8},
			OnAttempt: func(_ context.Context, e messaging.HandleAttempt) { told = append(told, e.Retry) },
		}, no)
		publish(t, b, message("orders", "", "a"))
		pass(time.Hour)
		at := r.times()
		require.Len(t, at, 8)
		for i := 1; i < len(at); i++ {
			require.Equal(t, told[i-1], at[i].Sub(at[i-1]))
			require.LessOrEqual(t, told[i-1], min(time.Second<<(i-1), 5*time.Minute))
		}
		require.Equal(t, "attempts", r.dead1(t).Reason)
		require.Equal(t, 8, r.dead1(t).Attempts)
	})
}

func TestRetryAfterIsBoundedByMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Group: "g", MaxAge: time.Hour},
			func(context.Context, *messaging.Message) error { return messaging.RetryAfter(errNo, 9*time.Minute) })
		publish(t, b, message("orders", "", "a"))
		pass(3 * time.Hour)
		require.Len(t, r.saw(), 7)
		require.Equal(t, "age", r.dead1(t).Reason)
		require.ErrorIs(t, r.dead1(t).Err, errNo)
	})
}

// Trap: the original is never acknowledged first; one copy in the end, and nobody runs the handler again meanwhile.
func TestAnUnreachableDeadLetterTopicLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var up atomic.Bool
		s := &scripted{answer: func(_ int, m []*messaging.Message) error {
			if !up.Load() {
				return failed(messaging.Failure{Err: errBroker})
			}
			return b.Send(context.Background(), m)
		}}
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g", Retry: every(time.Second, 2), Dead: publisher(t, s, messaging.PublisherConfig{Retry: retry.Never()}),
		}, no)
		publish(t, b, message("orders", "", "a"))
		pass(time.Hour)
		require.Len(t, r.saw(), 2)
		require.Empty(t, readDead(t, b))
		require.Equal(t, int64(1), r.Stats().Parked)
		up.Store(true)
		pass(10 * time.Minute)
		require.Len(t, r.saw(), 2)
		require.Len(t, readDead(t, b), 1)
		require.Equal(t, int64(1), r.Stats().Dead)
		require.NoError(t, r.stop())
	})
}

func TestADeadLetterFitsAlthoughItsReasonDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, membus.Config{MaxMessage: 10_000})
		run(t, b, messaging.ConsumerConfig{Group: "g"}, func(context.Context, *messaging.Message) error {
			return messaging.Reject(errors.New(strings.Repeat("very\nlong\x00ü", 100_000)))
		})
		whole, full := message("orders", "", "small"), message("orders", "", "")
		full.Body = make([]byte, 10_000-490)
		publish(t, b, whole, full)
		pass(time.Second)
		dead := readDead(t, b)
		require.Len(t, dead, 2)
		for _, m := range dead {
			why := m.Header["tandem-dead-error"]
			require.LessOrEqual(t, len(why), 1024)
			require.NotContains(t, why, "\n")
			if len(m.Body) == 5 {
				require.Greater(t, len(why), 1000)
				require.Equal(t, "rejected", m.Header["tandem-dead-reason"])
			} else {
				require.Equal(t, full.Body, m.Body)
			}
		}
	})
}

func TestALostVerdictIsToldAndCostsARedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		var lost []messaging.SettleError
		r := run(t, b, messaging.ConsumerConfig{
			Group: "g", OnSettle: func(_ context.Context, e messaging.SettleError) { lost = append(lost, e) },
		}, ok)
		b.Inject(membus.Fault{DropAcks: 1})
		publish(t, b, message("orders", "", "a"))
		pass(time.Hour)
		require.Equal(t, []string{"a", "a"}, r.saw())
		require.Len(t, lost, 1)
		require.Equal(t, "a", string(lost[0].Message.Body))
		require.Equal(t, messaging.Done, lost[0].Action)
	})
}

func TestAReaderGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Concurrency: 1}, ok)
		for i := range 10 {
			publish(t, b, message("orders", "", fmt.Sprint(i)))
			if i%3 == 2 {
				synctest.Wait()
				b.Inject(membus.Fault{Disconnect: true})
				publish(t, b, message("orders", "", fmt.Sprint(i, "+")))
				pass(time.Minute)
			}
		}
		pass(time.Minute)
		require.Equal(t, []string{"0", "1", "2", "2+", "3", "4", "5", "5+", "6", "7", "8", "8+", "9"}, r.saw())
		require.Equal(t, int64(3), r.Stats().Reconnects)
	})
}

func TestAConsumerWithoutDeadLettersRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Replay: messaging.ReplayCursor, Order: messaging.OrderReader})
		r := run(t, s, messaging.ConsumerConfig{Retry: every(time.Second, 2)}, no)
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 7})
		pass(time.Minute)
		require.Len(t, r.saw(), 2, "it retries in this process")
		got := s.settled()
		require.Len(t, got, 1)
		require.Equal(t, messaging.Refuse, got[0].Action)
		require.ErrorIs(t, got[0].Cause, errNo)
		require.Equal(t, uint64(7), got[0].Ref)
	})
}

// Where the transport holds no delay, waiting is done here, outside of the slots, with the lease kept alive.
func TestDelaysOfATransportWithoutDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lesser{newBus(t, busConfig), func(f *messaging.Features) { f.Delay = 0 }}
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Concurrency: 1, Retry: every(10*time.Minute, 3)},
			func(_ context.Context, m *messaging.Message) error {
				if string(m.Body) == "bad" && m.Attempt < 3 {
					return errNo
				}
				return nil
			})
		publish(t, b, bodies("orders", "bad", "bad", "good", "good")...)
		pass(time.Second)
		require.Equal(t, []string{"bad", "bad", "good", "good"}, r.saw())
		require.Equal(t, int64(2), r.Stats().Parked)
		pass(time.Hour)
		require.Len(t, r.saw(), 8)
		require.Zero(t, r.Stats().Late)
		require.Equal(t, int64(4), r.Stats().Handled)
	})
}

// Where the lease can neither hold nor be extended, the delay is the transport's to wish.
func TestADelayThatDoesNotFitTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Lease: true, Confirm: messaging.ConfirmBroker})
		run(t, s, messaging.ConsumerConfig{Group: "g", Retry: every(time.Minute, 3)}, no)
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Until: time.Now().Add(10 * time.Second)})
		pass(time.Second)
		got := s.settled()
		require.Len(t, got, 1)
		require.Equal(t, messaging.Retry, got[0].Action)
		require.Equal(t, time.Minute, got[0].Delay)
		require.ErrorIs(t, got[0].Cause, errNo)
	})
}

func TestALastDeliveryIsNeverGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{
			Groups: true, Confirm: messaging.ConfirmBroker, Delay: time.Hour, Attempts: messaging.AttemptsBroker,
		})
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Retry: every(time.Minute, 3), Concurrency: 1, Buffer: 3},
			func(_ context.Context, m *messaging.Message) error {
				if string(m.Body) == "slow" {
					time.Sleep(5 * time.Second)
					return nil
				}
				return errNo
			})
		s.deliver(messaging.Delivery{Message: message("orders", "", "a"), Ref: 1, Last: true})
		pass(10 * time.Minute)
		require.Len(t, r.saw(), 3, "it is retried here")
		require.Equal(t, "attempts", r.dead1(t).Reason)
		require.Equal(t, []string{"1 done"}, s.verdicts())

		s.deliver(
			messaging.Delivery{Message: message("orders", "", "b"), Ref: 2, Last: true},
			messaging.Delivery{Message: message("orders", "", "slow"), Ref: 3},
			messaging.Delivery{Message: message("orders", "", "waits"), Ref: 4, Last: true},
			messaging.Delivery{Message: message("orders", "", "free"), Ref: 5},
		)
		pass(time.Second)
		require.NoError(t, r.stop())
		require.ElementsMatch(t, []string{"1 done", "2 done", "3 done", "4 done", "5 release"}, s.verdicts())
		require.Equal(t, [][]string{{"a"}, {"b"}, {"waits"}}, s.sender.calls)
	})
}

func TestRecallAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{Groups: true, Confirm: messaging.ConfirmBroker})
		causes := make(chan error, 1)
		r := run(t, s, messaging.ConsumerConfig{Group: "g", Concurrency: 1, Buffer: 3}, func(ctx context.Context, m *messaging.Message) error {
			if string(m.Body) == "running" {
				<-ctx.Done()
				causes <- context.Cause(ctx)
			}
			return nil
		})
		recall, lost := make(chan struct{}), make(chan struct{})
		d := func(ref uint64, body string) messaging.Delivery {
			return messaging.Delivery{Message: message("orders", "", body), Ref: ref, Recall: recall, Lost: lost}
		}
		s.deliver(d(1, "running"), d(2, "waiting"), d(3, "waiting"))
		pass(time.Second)
		close(recall)
		synctest.Wait()
		require.Equal(t, []string{"2 release", "3 release"}, s.verdicts(), "what has not started is given back, what has goes on")
		close(lost)
		require.ErrorIs(t, <-causes, messaging.ErrLeaseLost)
		synctest.Wait()
		require.Len(t, s.verdicts(), 2, "nothing is said about a lost delivery")
		require.Equal(t, int64(1), r.Stats().Late)
		require.Equal(t, []string{"running"}, r.saw())
		s.deliver(messaging.Delivery{Message: message("orders", "", "next"), Ref: 4})
		synctest.Wait()
		require.Equal(t, []string{"running", "next"}, r.saw())
	})
}

func TestRunEndsOnlyForWhatNothingCanMend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(messaging.Features{})
		tries := 0
		s.open = func() error {
			if tries++; tries < 5 {
				return errBroker
			}
			return retry.Permanent(errNo)
		}
		var events []messaging.EventKind
		c, err := messaging.NewConsumer(s, "orders", ok, messaging.ConsumerConfig{
			OnEvent: func(_ context.Context, e messaging.Event) { events = append(events, e.Kind) },
		})
		require.NoError(t, err)
		require.ErrorIs(t, c.Run(t.Context()), errNo)
		require.Equal(t, 5, tries)
		require.Equal(t, []messaging.EventKind{messaging.Disconnected}, events)
		require.ErrorContains(t, c.Run(t.Context()), "before")
	})
}

func TestTheHandlersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		b := newBus(t, busConfig)
		ctx, _ := call.WithInbound(context.WithValue(t.Context(), key{}, "value"), 3)
		ctx, cancel := context.WithCancel(ctx)
		c, err := messaging.NewConsumer(b, "orders", func(hctx context.Context, _ *messaging.Message) error {
			cancel()
			synctest.Wait()
			if hctx.Err() != nil || hctx.Value(key{}) != "value" {
				t.Error("the handler's context has Run's values, and not its end")
			}
			if call.InboundFrom(hctx).Retried() {
				t.Error("a message's handler serves no synchronous caller")
			}
			return nil
		}, messaging.ConsumerConfig{Group: "g"})
		require.NoError(t, err)
		publish(t, b, message("orders", "", "a"))
		require.NoError(t, c.Run(ctx))
		require.Equal(t, int64(1), c.Stats().Handled)
	})
}

func TestPanicsOfHooksAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{
			Group:     "g",
			Retry:     retry.Policy{MaxAttempts: 2, OnRetry: func(context.Context, retry.Event) { panic("OnRetry") }},
			OnAttempt: func(context.Context, messaging.HandleAttempt) { panic("OnAttempt") },
			OnDead:    func(context.Context, messaging.DeadLetter) { panic("OnDead") },
			OnSettle:  func(context.Context, messaging.SettleError) { panic("OnSettle") },
			OnEvent:   func(context.Context, messaging.Event) { panic("OnEvent") },
		}, no)
		b.Inject(membus.Fault{DropAcks: 1, Disconnect: true})
		publish(t, b, message("orders", "", "a"))
		pass(time.Hour)
		require.Equal(t, int64(1), r.Stats().Dead)
		require.NoError(t, r.stop())
	})
}

// Ten thousand keys leave nothing behind, and one that fails for an hour holds nobody up.
func TestLanesVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lesser{newBus(t, busConfig), func(f *messaging.Features) {}}
		var calls atomic.Int32
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Ordered: true, Retry: every(time.Hour, 3)},
			func(_ context.Context, m *messaging.Message) error {
				if m.Key == "bad" && m.Attempt == 1 {
					return errNo
				}
				calls.Add(1)
				return nil
			})
		publish(t, b, message("orders", "bad", "b"))
		for i := range 100 {
			var m []*messaging.Message
			for j := range 100 {
				m = append(m, message("orders", fmt.Sprint(i, ".", j), "x"))
			}
			publish(t, b, m...)
		}
		pass(time.Minute)
		require.Equal(t, int32(10_000), calls.Load())
		pass(time.Hour)
		require.Equal(t, int32(10_001), calls.Load())
		require.NoError(t, r.stop())
	})
}

// A reader of keys in order on a transport that delivers whatever is next: the lanes are the consumer's.
func TestLanesOfAConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		r := run(t, b, messaging.ConsumerConfig{Ordered: true, Concurrency: 4, Buffer: 8, Retry: every(time.Minute, 3)},
			func(_ context.Context, m *messaging.Message) error {
				if string(m.Body) == "a1" && m.Attempt < 3 {
					return errNo
				}
				return nil
			})
		for i := range 30 {
			publish(t, b, message("orders", "a", fmt.Sprint("a", i)), message("orders", "b", fmt.Sprint("b", i)))
		}
		pass(30 * time.Second)
		require.Len(t, r.saw(), 32, "a0, a1 and all of b: a lane that waits takes no slot")
		pass(time.Hour)
		saw := r.saw()
		require.Len(t, saw, 62)
		next := map[byte]int{}
		for _, s := range saw {
			if s == fmt.Sprint(s[:1], next[s[0]]-1) {
				continue // again
			}
			require.Equal(t, fmt.Sprint(s[:1], next[s[0]]), s)
			next[s[0]]++
		}
	})
}

func TestBytesInHandAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, busConfig)
		release := make(chan struct{})
		r := run(t, b, messaging.ConsumerConfig{Group: "g", Buffer: 84, BufferBytes: 1 << 20},
			func(context.Context, *messaging.Message) error {
				<-release
				return nil
			})
		for range 100 {
			m := message("orders", "", "")
			m.Body = make([]byte, 100<<10)
			publish(t, b, m)
		}
		synctest.Wait()
		require.LessOrEqual(t, r.Stats().Received, int64(12))
		close(release)
		pass(time.Second)
		require.Equal(t, int64(100), r.Stats().Handled)
	})
}
