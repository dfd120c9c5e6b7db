package membus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

type settings struct {
	messages, bytes int
	age, dedupe     time.Duration
}

// A topic is a bounded log with the groups and readers of it. Message number n of the log is at log[n&mask].
type topic struct {
	name     string
	settings settings
	faults   *faults

	mu     sync.Mutex // guards everything below, and the groups
	log    []entry    // a power of two
	base   uint64     // number of the oldest message kept
	next   uint64     // number of the next message
	spare  uint64     // messages below have been delivered to every group: they are kept for readers only
	bytes  int
	groups map[string]*group
	all    []*group // groups and readers
	reader int      // how many readers there are
	room   chan struct{}

	seen  map[string]struct{} // what was published within the dedupe window
	order []sighting          // the same, oldest at seenAt
	first int
}

type entry struct {
	m  messaging.Message
	at time.Time
}

type sighting struct {
	id string
	at time.Time
}

func (t *topic) differs(s settings) error {
	var errs []error
	if t.settings.age != s.age {
		errs = append(errs, fmt.Errorf("membus: topic %s exists with MaxAge %v, not %v", t.name, t.settings.age, s.age))
	}
	if t.settings.bytes != s.bytes {
		errs = append(errs, fmt.Errorf("membus: topic %s exists with MaxBytes %d, not %d", t.name, t.settings.bytes, s.bytes))
	}
	return errors.Join(errs...)
}

// append stores messages in order, waiting for room. It returns how many are stored, or known from before.
func (t *topic) append(ctx context.Context, m []*messaging.Message) (int, error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	for i := range m {
		id, fresh := t.sight(m[i])
		if !fresh {
			continue
		}
		for !t.makeRoom(len(m[i].Body)) {
			t.wakeGroups() // for what is stored so far
			if err := t.waitForRoom(ctx); err != nil {
				return i, err
			}
			now = time.Now()
		}
		if _, fresh := t.sight(m[i]); !fresh {
			continue // stored by somebody else while this one waited
		}
		t.remember(id, now)
		t.put(m[i], now)
		if t.faults.duplicate() {
			t.put(m[i], now)
		}
	}
	t.wakeGroups()
	return len(m), nil
}

func (t *topic) at(n uint64) *entry { return &t.log[n&uint64(len(t.log)-1)] }

func (t *topic) put(m *messaging.Message, now time.Time) {
	if int(t.next-t.base) == len(t.log) {
		t.grow()
	}
	e := t.at(t.next)
	e.m, e.at = *m, now
	e.m.Attempt, e.m.Group, e.m.Cursor = 0, "", "" // of a message that was received before
	t.next++
	t.bytes += len(m.Body)
}

func (t *topic) grow() {
	old := t.log
	t.log = make([]entry, max(64, 2*len(old)))
	for n := t.base; n < t.next; n++ {
		t.log[n&uint64(len(t.log)-1)] = old[n&uint64(len(old)-1)]
	}
}

// drop forgets the oldest message.
func (t *topic) drop() {
	e := t.at(t.base)
	t.bytes -= len(e.m.Body)
	*e = entry{}
	t.base++
}

// expire forgets what is too old: sightings, and messages that every group has had.
func (t *topic) expire(now time.Time) {
	for t.first < len(t.order) && now.Sub(t.order[t.first].at) >= t.settings.dedupe {
		t.unsee()
	}
	t.advance()
	for t.base < t.spare && now.Sub(t.at(t.base).at) >= t.settings.age {
		t.drop()
	}
}

// advance moves spare: to the slowest group; where there are only readers, to the end.
func (t *topic) advance() {
	if len(t.groups) == 0 && t.reader == 0 {
		return // nobody has had them: they wait for the first group
	}
	slowest := t.next
	for _, g := range t.groups {
		slowest = min(slowest, g.next)
	}
	t.spare = max(t.spare, slowest)
}

// makeRoom reports whether a message of size bytes fits, after forgetting what only readers might want. What a group
// has fetched and not settled counts as well.
func (t *topic) makeRoom(size int) bool {
	if t.fits(size) {
		return true
	}
	t.advance()
	for t.base < t.spare && !t.fits(size) {
		t.drop()
	}
	return t.fits(size)
}

func (t *topic) fits(size int) bool {
	held := 0
	for _, g := range t.groups {
		held = max(held, g.held())
	}
	kept := int(t.next - t.base)
	if kept == 0 && held == 0 {
		return true // even one that is larger than the topic
	}
	// What is held may be in the log, too; counting it once is enough.
	unread := int(t.next - t.spare)
	return kept < t.settings.messages && unread+held < t.settings.messages && t.bytes+size <= t.settings.bytes
}

// waitForRoom waits, unlocked, until there may be room.
func (t *topic) waitForRoom(ctx context.Context) error {
	if t.room == nil {
		t.room = make(chan struct{})
	}
	room := t.room
	t.mu.Unlock()
	defer t.mu.Lock()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("membus: topic %s is full: %w", t.name, context.Cause(ctx))
	}
}

// madeRoom wakes the publishers that wait.
func (t *topic) madeRoom() {
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
}

// sight reports whether m was not published within the dedupe window, and what it is known by.
func (t *topic) sight(m *messaging.Message) (string, bool) {
	id := m.ID
	for k := range m.Header {
		if strings.HasPrefix(k, "tandem-dead-") { // a copy, that shares its ID with an original
			id = messaging.DedupeID(m)
			break
		}
	}
	_, known := t.seen[id]
	return id, !known
}

// remember enters an ID into the dedupe window, which is bounded by the size of the topic as well.
func (t *topic) remember(id string, now time.Time) {
	for len(t.order)-t.first >= t.settings.messages {
		t.unsee()
	}
	t.seen[id] = struct{}{}
	t.order = append(t.order, sighting{id, now})
}

func (t *topic) unsee() {
	delete(t.seen, t.order[t.first].id)
	t.order[t.first] = sighting{}
	t.first++
	if t.first > 1024 && t.first > len(t.order)/2 {
		n := copy(t.order, t.order[t.first:])
		clear(t.order[n:])
		t.order, t.first = t.order[:n], 0
	}
}

func (t *topic) wakeGroups() {
	for _, g := range t.all {
		g.wake()
	}
}

// open adds a member to a group, or a reader.
func (t *topic) open(s messaging.Spec) (*subscription, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Now())
	g := t.groups[s.Group]
	if s.Group == "" || g == nil {
		start, err := t.start(s.Start)
		if err != nil {
			return nil, retry.Permanent(err)
		}
		g = &group{topic: t, name: s.Group, next: start, ordered: s.Ordered && s.Group != ""}
		if g.ordered {
			g.lanes = make(map[string]*lane)
		}
		t.all = append(t.all, g)
		if s.Group == "" {
			t.reader++
		} else {
			t.groups[s.Group] = g
		}
	}
	if err := g.join(s.Ordered); err != nil {
		return nil, retry.Permanent(err)
	}
	lease := s.Lease
	if lease <= 0 {
		lease = 30 * time.Second
	}
	sub := &subscription{group: g, lease: lease, most: s.MaxBytes, report: s.Report, woken: make(chan struct{}, 1)}
	g.members++
	return sub, nil
}

// start finds the number of the first message.
func (t *topic) start(s messaging.Start) (uint64, error) {
	if s.IsEarliest() {
		return t.base, nil
	}
	if at, ok := s.Time(); ok {
		n := t.base
		for n < t.next && t.at(n).at.Before(at) {
			n++
		}
		return n, nil
	}
	cursors := s.Cursors()
	switch {
	case len(cursors) == 0:
		return t.next, nil
	case len(cursors) > 1:
		return 0, fmt.Errorf("membus: %w: more than one cursor", messaging.ErrUnsupported)
	}
	n, err := strconv.ParseUint(string(cursors[0]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("membus: cursor %q is none of this transport", string(cursors[0]))
	}
	return min(n+1, t.next), nil // below base it is a gap, which Receive tells
}
