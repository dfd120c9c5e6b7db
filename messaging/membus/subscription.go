package membus

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A subscription is one member of a group, or a reader. The mutex of its topic guards it, but for woken.
type subscription struct {
	group  *group
	lease  time.Duration
	most   int // bytes of bodies in hand
	report func(context.Context, messaging.Event)
	woken  chan struct{}
	timer  *time.Timer // of Receive

	waits  bool      // listed in group.waiting
	due    time.Time // while it waits: when it looks again; zero: not by itself
	bytes  int
	closed bool
	broken error // what Receive fails with
}

// Receive implements messaging.Subscription.
func (s *subscription) Receive(ctx context.Context, into []messaging.Delivery) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, gap, due, err := s.take(into)
		if gap > 0 {
			s.report(ctx, messaging.Event{Kind: messaging.Gap, Gap: gap})
		}
		if n > 0 || err != nil {
			return n, err
		}
		if err := s.wait(ctx, due); err != nil {
			return 0, err
		}
	}
}

// wait waits until there may be something to deliver.
func (s *subscription) wait(ctx context.Context, due time.Time) error {
	var clock <-chan time.Time
	if !due.IsZero() {
		if s.timer == nil {
			s.timer = time.NewTimer(time.Until(due))
		} else {
			s.timer.Reset(time.Until(due))
		}
		defer s.timer.Stop()
		clock = s.timer.C
	}
	select {
	case <-s.woken:
		if ctx.Err() == nil {
			return nil
		}
	case <-clock:
	case <-ctx.Done():
	}
	t := s.group.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	s.group.unlist(s)
	if ctx.Err() != nil {
		s.group.attend() // it will not look, woken or not: somebody else should
		return context.Cause(ctx)
	}
	return nil
}

func (g *group) unlist(s *subscription) {
	if !s.waits {
		return
	}
	s.waits = false
	for i, w := range g.waiting {
		if w == s {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return
		}
	}
}

// take delivers what is there. Where there is nothing, it lists s as waiting and says when to look again.
func (s *subscription) take(into []messaging.Delivery) (n int, gap int64, due time.Time, err error) {
	g, t := s.group, s.group.topic
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.closed {
		return 0, 0, due, fmt.Errorf("membus: subscription: %w", messaging.ErrClosed)
	}
	if s.broken != nil {
		return 0, 0, due, s.broken
	}
	if g.next < t.log.base { // only a reader can be that slow
		gap = int64(t.log.base - g.next)
		g.next = t.log.base
	}
	g.settleTime(now)
	n = s.fill(into, now)
	if n > 0 {
		g.attend()
		t.madeRoom()
		return n, gap, due, nil
	}
	s.due = g.due()
	if !s.waits {
		s.waits = true
		g.waiting = append(g.waiting, s)
	}
	return 0, gap, s.due, nil
}

// fill delivers at most len(into) messages, whose bodies are at most the bytes the consumer wants in hand, but one at
// least. The copies share one allocation, and so do their cursors.
func (s *subscription) fill(into []messaging.Delivery, now time.Time) int {
	g := s.group
	var copies []messaging.Message
	var cursors strings.Builder
	var digits [20]byte
	for n := range into {
		if n > 0 && s.most > 0 && s.bytes >= s.most {
			return n
		}
		it := g.nextItem(now)
		if it == nil {
			return n
		}
		if copies == nil {
			left := len(g.again) + int(g.topic.log.next-g.next) + 1
			copies = make([]messaging.Message, min(len(into), left))
			cursors.Grow(len(copies) * len(strconv.AppendUint(digits[:0], g.topic.log.next, 10)))
		}
		m := &copies[n]
		*m = it.m
		it.attempts++
		start := cursors.Len()
		cursors.Write(strconv.AppendUint(digits[:0], it.number, 10))
		m.Topic, m.Attempt, m.Group, m.Cursor = g.topic.name, it.attempts, g.name, messaging.Cursor(cursors.String()[start:])
		into[n] = messaging.Delivery{Message: m}
		if g.name == "" { // nothing comes back from a reader
			it.turn++
			g.forget(it)
			continue
		}
		g.leased++
		it.member, it.until = s, now.Add(s.lease)
		g.expires(it.until)
		s.bytes += len(m.Body)
		into[n].Until, into[n].Ref = it.until, it.ref()
	}
	return len(into)
}

// Settle implements messaging.Subscription.
func (s *subscription) Settle(_ context.Context, v []messaging.Settlement) error {
	g, t := s.group, s.group.topic
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.closed {
		return fmt.Errorf("membus: subscription: %w", messaging.ErrClosed)
	}
	if g.name == "" {
		for i := range v {
			v[i].Err = nil
		}
		return nil
	}
	for i := range v {
		s.settle(&v[i], now)
	}
	g.attend()
	t.madeRoom()
	return nil
}

func (s *subscription) settle(v *messaging.Settlement, now time.Time) {
	g := s.group
	v.Err = nil
	it := g.find(s, v.Ref, now)
	if it == nil {
		v.Err = messaging.ErrLeaseLost
		return
	}
	if v.Action == messaging.Extend {
		it.until = now.Add(s.lease)
		v.Until = it.until
		return
	}
	if v.Err = g.topic.faults.ack(); v.Err != nil {
		return
	}
	switch v.Action {
	case messaging.Release:
		it.attempts-- // no failure of the message, and nobody needs to think so
		fallthrough
	case messaging.Retry:
		g.unlease(it)
		it.due = time.Time{}
		if v.Delay <= 0 {
			heap.Push(&g.again, it)
			return
		}
		it.due = now.Add(v.Delay)
		heap.Push(&g.later, it)
	default: // Done, Refuse
		g.finish(it)
	}
}

// Lag implements messaging.Lagger.
func (s *subscription) Lag(context.Context) (messaging.Lag, error) {
	g, t := s.group, s.group.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting := int64(t.log.next-max(g.next, t.log.base)) + int64(len(g.again)+len(g.later)+g.blocked)
	return messaging.Lag{Messages: waiting, Unacked: int64(g.leased)}, nil
}

// Close implements messaging.Subscription. What is not settled comes again when its lease ends.
func (s *subscription) Close(context.Context) error {
	g, t := s.group, s.group.topic
	t.faults.remove(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	g.unlist(s)
	g.members--
	if g.name == "" {
		t.readers = slices.DeleteFunc(t.readers, func(o *group) bool { return o == g })
	}
	g.attend()
	return nil
}
