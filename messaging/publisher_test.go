package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

var errBroker = errors.New("broker is unwell")

func failed(f ...messaging.Failure) error { return &messaging.PublishError{Failed: f} }

func TestARetrySendsOnlyWhatIsNotStoredUnderTheSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(call int, _ []*messaging.Message) error {
			if call == 1 {
				return failed(messaging.Failure{Index: 1, Err: errBroker}, messaging.Failure{Index: 2, Unknown: true, Err: errBroker})
			}
			return nil
		}}
		m := bodies("orders", "a", "b", "c")
		require.NoError(t, publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), m...))
		require.Equal(t, [][]string{{"a", "b", "c"}, {"b", "c"}}, s.calls)
		require.Equal(t, s.ids[0][1:], s.ids[1])
		require.Equal(t, m[1].ID, s.ids[1][0])
	})
}

func TestAnUnknownMessageStaysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(call int, _ []*messaging.Message) error {
			return failed(messaging.Failure{Unknown: call == 1, Err: errBroker})
		}}
		err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), message("orders", "", "a"))
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.True(t, pe.Failed[0].Unknown, "the second copy was refused; that says nothing about the first")
		require.ErrorIs(t, err, errBroker)
		re, is := errors.AsType[*retry.Error](err)
		require.True(t, is)
		require.Equal(t, 3, re.Attempts)
		require.Len(t, s.calls, 3)
	})
}

func TestAPlainErrorOfASenderIsUnknownForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(int, []*messaging.Message) error { return errBroker }}
		err := publisher(t, s, messaging.PublisherConfig{Retry: retry.Never()}).Publish(t.Context(), bodies("orders", "a", "b")...)
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.Len(t, pe.Failed, 2)
		for i, f := range pe.Failed {
			require.Equal(t, i, f.Index)
			require.True(t, f.Unknown)
		}
	})
}

func TestAFailedMessageFailsTheLaterOnesOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{features: messaging.Features{MaxBytes: 1000}}
		m := []*messaging.Message{
			message("orders", "k", "1"), message("orders", "k", "2"),
			message("orders", "k", strings.Repeat("x", 2000)),
			message("orders", "other", "o"), message("orders", "k", "4"), message("else", "k", "e"),
		}
		err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), m...)
		require.Equal(t, [][]string{{"1", "2", "o"}, {"e"}}, s.calls)
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.Len(t, pe.Failed, 2)
		require.Equal(t, 2, pe.Failed[0].Index)
		require.Equal(t, 4, pe.Failed[1].Index)
		large, is := errors.AsType[*messaging.TooLargeError](err)
		require.True(t, is)
		require.Equal(t, 1000, large.Limit)
	})
}

func TestARefusalOfTheSenderIsFinalForItsKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(call int, m []*messaging.Message) error {
			if call > 1 {
				return nil
			}
			return failed(
				messaging.Failure{Index: 0, Err: retry.Permanent(errBroker)},
				messaging.Failure{Index: 1, Err: errBroker}, messaging.Failure{Index: 2, Err: errBroker},
			)
		}}
		err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(),
			message("orders", "k", "1"), message("orders", "k", "2"), message("orders", "", "3"))
		require.Equal(t, [][]string{{"1", "2", "3"}, {"3"}}, s.calls)
		pe, is := errors.AsType[*messaging.PublishError](err)
		require.True(t, is)
		require.Len(t, pe.Failed, 2)
		require.Equal(t, 1, pe.Failed[1].Index)
	})
}

func TestPublishErrorAnswersForAllItsMessages(t *testing.T) {
	final, passing := retry.Permanent(errBroker), retry.After(errBroker, 3*time.Second)
	one := &messaging.PublishError{Failed: []messaging.Failure{{Err: final}, {Err: passing}}}
	require.False(t, one.Permanent(), "one refused message must not stop the others")
	d, has := one.Hint()
	require.True(t, has)
	require.Equal(t, 3*time.Second, d)
	require.True(t, (&messaging.PublishError{Failed: []messaging.Failure{{Err: final}}}).Permanent())
}

func TestTopicsHaveBreakersOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(_ int, m []*messaging.Message) error {
			if m[0].Topic == "sick" {
				return failed(messaging.Failure{Err: errBroker})
			}
			return nil
		}}
		p := publisher(t, s, messaging.PublisherConfig{Retry: retry.Never()})
		for range 10 {
			require.ErrorIs(t, p.Publish(t.Context(), message("sick", "", "a")), errBroker)
		}
		err := p.Publish(t.Context(), message("sick", "", "a"))
		require.ErrorIs(t, err, breaker.ErrOpen)
		pe, _ := errors.AsType[*messaging.PublishError](err)
		require.False(t, pe.Failed[0].Unknown, "a refused message was never sent")
		require.NoError(t, p.Publish(t.Context(), message("well", "", "a")))
	})
}

func TestAttemptsAreBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hanging{}
		began := time.Now()
		err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), message("orders", "", "a"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		require.Equal(t, int32(3), s.calls.Load())
	})
}

// A hanging Sender answers when its context ends.
type hanging struct{ calls atomic.Int32 }

func (h *hanging) Features() messaging.Features {
	return messaging.Features{Confirm: messaging.ConfirmBroker}
}

func (h *hanging) Send(ctx context.Context, m []*messaging.Message) error {
	h.calls.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

func TestATransactionIsSentOnceWithoutTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := &inTx{send: func(ctx context.Context) error {
			calls++
			_, bounded := ctx.Deadline()
			require.False(t, bounded)
			return errBroker
		}}
		p := publisher(t, s, messaging.PublisherConfig{})
		require.ErrorIs(t, p.Publish(t.Context(), message("orders", "", "a")), errBroker)
		require.Equal(t, 1, calls)
		var answer error
		require.NoError(t, p.Go(t.Context(), message("orders", "", "a"), func(err error) { answer = err }))
		require.ErrorIs(t, answer, errBroker, "Go must have sent before it returned")
		_, err := messaging.NewConsumer(newBus(t, busConfig), "orders", ok, messaging.ConsumerConfig{Group: "g", Dead: p})
		require.ErrorIs(t, err, messaging.ErrUnsupported, "a dead letter in a transaction is stored by nobody")
	})
}

type inTx struct{ send func(context.Context) error }

func (*inTx) Features() messaging.Features { return messaging.Features{Confirm: messaging.ConfirmTx} }

func (s *inTx) Send(ctx context.Context, _ []*messaging.Message) error { return s.send(ctx) }

func TestGoKeepsTheOrderOfKeysAndFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stored []string
		s := &scripted{answer: func(call int, m []*messaging.Message) error {
			time.Sleep(time.Second)
			if call == 2 {
				return failed(messaging.Failure{Index: 0, Err: errBroker})
			}
			mu.Lock()
			defer mu.Unlock()
			for _, m := range m {
				stored = append(stored, string(m.Body))
			}
			return nil
		}}
		p := publisher(t, s, messaging.PublisherConfig{Window: 5})
		var answered atomic.Int32
		for i := range 20 {
			require.NoError(t, p.Go(t.Context(), message("orders", "k", fmt.Sprintf("%02d", i)), func(err error) {
				require.NoError(t, err)
				answered.Add(1)
			}))
			require.LessOrEqual(t, i+1-int(answered.Load()), 5+5, "the window")
		}
		require.NoError(t, p.Flush(t.Context()))
		require.Equal(t, int32(20), answered.Load())
		require.True(t, slices.IsSorted(stored))
		require.NoError(t, p.Flush(t.Context()), "nothing to wait for")
	})
}

func TestAFailureOfGoFailsWhatWaitsBehindItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(call int, m []*messaging.Message) error {
			time.Sleep(time.Second)
			if call == 1 {
				return failed(messaging.Failure{Err: retry.Permanent(errBroker)})
			}
			return nil
		}}
		p := publisher(t, s, messaging.PublisherConfig{})
		answers := make(chan string, 10)
		for _, m := range []*messaging.Message{
			message("orders", "k", "1"), message("orders", "k", "2"), message("orders", "j", "3"), message("orders", "", "4"),
		} {
			require.NoError(t, p.Go(t.Context(), m, func(err error) { answers <- fmt.Sprint(string(m.Body), " ", err == nil) }))
			synctest.Wait() // the first is on its way before the others are queued
		}
		require.NoError(t, p.Flush(t.Context()))
		close(answers)
		var got []string
		for a := range answers {
			got = append(got, a)
		}
		slices.Sort(got)
		require.Equal(t, []string{"1 false", "2 false", "3 true", "4 true"}, got)
	})
}

func TestGoWaitsForRoomUnderItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{answer: func(int, []*messaging.Message) error { <-release; return nil }}
		p := publisher(t, s, messaging.PublisherConfig{Window: 1})
		require.NoError(t, p.Go(t.Context(), message("orders", "", "1"), nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, p.Go(ctx, message("orders", "", "2"), func(error) { t.Error("done of a message that Go refused") }),
			context.DeadlineExceeded)
		require.ErrorIs(t, p.Flush(ctx), context.DeadlineExceeded)
		close(release)
		require.NoError(t, p.Flush(t.Context()))
	})
}

func TestADoneMayCallGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := publisher(t, &scripted{}, messaging.PublisherConfig{Window: 1})
		left := 10
		var again func(error)
		all := make(chan struct{})
		again = func(error) {
			if left--; left == 0 {
				close(all)
				return
			}
			if err := p.Go(context.Background(), message("orders", "", "x"), again); err != nil {
				t.Error(err)
			}
		}
		require.NoError(t, p.Go(t.Context(), message("orders", "", "x"), again))
		<-all
		require.NoError(t, p.Flush(t.Context()))
	})
}

func TestGoUnderLoad(t *testing.T) {
	s := &scripted{}
	p := publisher(t, s, messaging.PublisherConfig{Window: 64})
	var answered atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 500 {
				if err := p.Go(context.Background(), message("orders", "k", "x"), func(error) { answered.Add(1) }); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if err := p.Flush(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, p.Flush(t.Context()))
	require.Equal(t, int32(4000), answered.Load())
}

func TestIDsAreUUIDsOfVersion7InOrder(t *testing.T) {
	p := publisher(t, &scripted{}, messaging.PublisherConfig{})
	var ids []string
	for range 50 {
		m := bodies("orders", "a", "b", "c")
		require.NoError(t, p.Publish(t.Context(), m...))
		for _, m := range m {
			ids = append(ids, m.ID)
			require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, m.ID)
		}
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(ids))), 150)
	for i := 3; i < len(ids); i += 3 {
		require.LessOrEqual(t, ids[i-3][:18], ids[i][:18])
	}
}

func TestNewPublisherReportsEveryFault(t *testing.T) {
	_, err := messaging.NewPublisher(&scripted{}, messaging.PublisherConfig{
		Timeout: -1, AttemptTimeout: -1, Window: -1, Source: "a\nb", Retry: retry.Policy{MaxAttempts: -1},
	})
	for _, part := range []string{"Timeout", "AttemptTimeout", "Window", "Source", "Retry"} {
		require.ErrorContains(t, err, part)
	}
	_, err = messaging.NewPublisher(nil, messaging.PublisherConfig{})
	require.Error(t, err)
}

func TestPublishAttemptsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(call int, _ []*messaging.Message) error {
			if call == 1 {
				return failed(messaging.Failure{Err: errBroker})
			}
			return nil
		}}
		var told []string
		p := publisher(t, s, messaging.PublisherConfig{OnAttempt: func(_ context.Context, e messaging.PublishAttempt) {
			told = append(told, fmt.Sprint(e.Number, e.Topic, e.Messages, e.Err != nil))
			panic("a hook's panic is nobody else's")
		}})
		require.NoError(t, p.Publish(t.Context(), message("orders", "", "a")))
		require.Equal(t, []string{"1orders1 true", "2orders1 false"}, told)
	})
}
