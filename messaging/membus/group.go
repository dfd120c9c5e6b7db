package membus

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A group is one place in a topic, shared by its members; or a reader, which has one member and no leases. The mutex of
// its topic guards it.
type group struct {
	topic   *topic
	name    string // empty: a reader
	ordered bool
	members int

	next    uint64  // the next message of the log
	items   []*item // by the low half of their ref
	free    []uint32
	leased  int
	expiry  time.Time // no lease ends before; zero: none is known
	again   itemHeap  // to be delivered again: those without delay by age, then by the time they became due
	later   itemHeap  // not before a time, earliest first
	lanes   map[string]*lane
	blocked int             // messages that wait in lanes
	bytes   int             // of the bodies of items
	waiting []*subscription // members that wait for messages, longest first
}

// An item is one message of a group from its first delivery, or delay, to its end.
type item struct {
	m        messaging.Message // as it was published; the log may drop it, and what was delivered is the handler's
	number   uint64
	attempts int
	slot     uint32 // in items
	turn     uint32 // counts the uses of the slot: an old ref finds nothing
	head     bool   // of its lane
	due      time.Time
	until    time.Time // while leased
	member   *subscription
}

// A lane is the messages of one key that are not settled: the first is with a member, or waits for a retry.
type lane struct{ behind []*item }

// join checks that a new member wants the group as it is.
func (g *group) join(ordered bool) error {
	if g.name == "" || g.ordered == ordered {
		return nil
	}
	if g.members > 0 {
		return fmt.Errorf("membus: group %s of topic %s has members with another Ordered: %w",
			g.name, g.topic.name, messaging.ErrUnsupported)
	}
	if ordered {
		g.makeLanes()
	} else {
		g.leaveLanes()
	}
	g.ordered = ordered
	return nil
}

// makeLanes puts what the group has in hand into lanes: first what is leased, then the rest by age. What is delayed enters
// its lane when it is due.
func (g *group) makeLanes() {
	g.lanes, g.ordered = make(map[string]*lane), true
	for _, it := range g.items {
		if !it.until.IsZero() {
			g.occupyLane(it)
		}
	}
	again := g.again
	g.again = nil
	slices.SortFunc(again, func(a, b *item) int { return cmp.Compare(a.number, b.number) })
	for _, it := range again {
		if g.enterLane(it) {
			heap.Push(&g.again, it)
		}
	}
}

// leaveLanes lets everything that waits in lanes be delivered.
func (g *group) leaveLanes() {
	for _, l := range g.lanes {
		for _, it := range l.behind {
			heap.Push(&g.again, it)
		}
	}
	for _, it := range g.items {
		it.head = false
	}
	g.lanes, g.blocked = nil, 0
}

// held is how many messages the group keeps beside the log.
func (g *group) held() int { return g.leased + len(g.again) + len(g.later) + g.blocked }

// wake lets the member that has waited longest look for messages. It wakes the next one itself if it leaves some.
func (g *group) wake() {
	if len(g.waiting) == 0 {
		return
	}
	s := g.waiting[0]
	g.waiting = g.waiting[:copy(g.waiting, g.waiting[1:])]
	s.waits = false
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// attend wakes a member if there is something to deliver, or if there will be by the clock and nobody looks then.
func (g *group) attend() {
	if !g.pending() {
		due := g.due()
		if due.IsZero() || slices.ContainsFunc(g.waiting, func(s *subscription) bool {
			return !s.due.IsZero() && !s.due.After(due)
		}) {
			return
		}
	}
	g.wake()
}

// settleTime moves what the clock has decided: leases that have passed, delays that are over.
func (g *group) settleTime(now time.Time) {
	if !g.expiry.IsZero() && !now.Before(g.expiry) {
		g.expireLeases(now)
	}
	for len(g.later) > 0 && !now.Before(g.later[0].due) {
		it := heap.Pop(&g.later).(*item)
		if g.enterLane(it) { // a scheduled message takes its place when it is due; others have theirs
			heap.Push(&g.again, it)
		}
	}
}

func (g *group) expireLeases(now time.Time) {
	g.expiry = time.Time{}
	for _, it := range g.items {
		if it.until.IsZero() {
			continue
		}
		if !now.Before(it.until) {
			g.unlease(it)
			it.due = time.Time{}
			heap.Push(&g.again, it)
			continue
		}
		g.expires(it.until)
	}
}

func (g *group) expires(t time.Time) {
	if g.expiry.IsZero() || t.Before(g.expiry) {
		g.expiry = t
	}
}

// due is when something will be there to be delivered; zero: not by the clock.
func (g *group) due() time.Time {
	t := g.expiry
	if len(g.later) > 0 && (t.IsZero() || g.later[0].due.Before(t)) {
		t = g.later[0].due
	}
	return t
}

// pending reports whether there is something to deliver now.
func (g *group) pending() bool { return len(g.again) > 0 || g.next < g.topic.log.next }

// nextItem returns the next message to be delivered, nil if there is none.
func (g *group) nextItem(now time.Time) *item {
	if len(g.again) > 0 {
		return heap.Pop(&g.again).(*item)
	}
	for g.next < g.topic.log.next {
		it := g.newItem()
		it.m, it.number = g.topic.log.at(g.next).m, g.next
		g.next++
		g.bytes += len(it.m.Body)
		if it.m.NotBefore.After(now) {
			it.due = it.m.NotBefore
			heap.Push(&g.later, it)
			continue
		}
		if g.enterLane(it) {
			return it
		}
	}
	return nil
}

// enterLane reports whether it may be delivered; else it waits behind an earlier one of its key.
func (g *group) enterLane(it *item) bool {
	if it.head || g.occupyLane(it) {
		return true
	}
	l := g.lanes[it.m.Key]
	l.behind = append(l.behind, it)
	g.blocked++
	return false
}

// occupyLane makes it the head of its lane, if it needs one and nobody has it.
func (g *group) occupyLane(it *item) bool {
	if !g.ordered || it.m.Key == "" {
		return true
	}
	if g.lanes[it.m.Key] != nil {
		return false
	}
	g.lanes[it.m.Key] = &lane{}
	it.head = true
	return true
}

// leaveLane lets the next message of the key be delivered.
func (g *group) leaveLane(key string) {
	l := g.lanes[key]
	if len(l.behind) == 0 {
		delete(g.lanes, key)
		return
	}
	it := l.behind[0]
	l.behind = l.behind[1:]
	g.blocked--
	it.head = true
	heap.Push(&g.again, it)
}

func (g *group) newItem() *item {
	if n := len(g.free); n > 0 {
		slot := g.free[n-1]
		g.free = g.free[:n-1]
		return g.items[slot]
	}
	it := &item{slot: uint32(len(g.items))}
	g.items = append(g.items, it)
	return it
}

func (it *item) ref() uint64 { return uint64(it.turn)<<32 | uint64(it.slot) }

// find returns the item that s holds under ref.
func (g *group) find(s *subscription, ref uint64, now time.Time) *item {
	slot := uint32(ref)
	if int(slot) >= len(g.items) {
		return nil
	}
	it := g.items[slot]
	if it.turn != uint32(ref>>32) || it.member != s || it.until.IsZero() || !now.Before(it.until) {
		return nil
	}
	return it
}

// unlease ends a delivery. Its ref finds nothing any more.
func (g *group) unlease(it *item) {
	it.turn++
	it.member.bytes -= len(it.m.Body)
	it.until, it.member = time.Time{}, nil
	g.leased--
}

// finish forgets an item that is settled.
func (g *group) finish(it *item) {
	g.unlease(it)
	if it.head {
		g.leaveLane(it.m.Key)
	}
	g.forget(it)
}

// forget frees the slot of an item.
func (g *group) forget(it *item) {
	g.bytes -= len(it.m.Body)
	*it = item{slot: it.slot, turn: it.turn}
	g.free = append(g.free, it.slot)
}

// An itemHeap is ordered by due, then by number.
type itemHeap []*item

func (h itemHeap) Len() int { return len(h) }

func (h itemHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].number < h[j].number
}

func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *itemHeap) Push(x any) { *h = append(*h, x.(*item)) }

func (h *itemHeap) Pop() any {
	old := *h
	n := len(old) - 1
	it := old[n]
	old[n] = nil
	*h = old[:n]
	return it
}
