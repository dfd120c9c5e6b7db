package membus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

type settings struct {
	messages, bytes int
	age, dedupe     time.Duration
}

// A topic is a bounded log with the groups and readers of it.
type topic struct {
	name     string
	settings settings
	faults   *faults

	mu      sync.Mutex // guards everything below, and the groups
	log     ring[entry]
	spare   uint64 // messages below have been delivered to every group: they are kept for readers only
	bytes   int
	window  window
	named   map[string]*group
	groups  []*group // the same
	readers []*group
	room    chan struct{} // closed when there may be room; nil: nobody waits
}

type entry struct {
	m  messaging.Message
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
		known, hash := t.window.key(m[i])
		for !t.window.has(known, hash) {
			if t.makeRoom(len(m[i].Body)) {
				t.window.add(known, hash, now)
				t.put(m[i], now)
				if t.faults.duplicate() {
					t.put(m[i], now)
				}
				break
			}
			t.wakeAll() // for what is stored so far
			if err := t.waitForRoom(ctx); err != nil {
				return i, err
			}
			now = time.Now()
		}
	}
	t.wakeAll()
	return len(m), nil
}

func (t *topic) put(m *messaging.Message, now time.Time) {
	e := t.log.push()
	e.m, e.at = *m, now
	e.m.Attempt, e.m.Group, e.m.Cursor = 0, "", "" // of a message that was received before
	t.bytes += len(m.Body)
}

// drop forgets the oldest message.
func (t *topic) drop() {
	t.bytes -= len(t.log.at(t.log.base).m.Body)
	t.log.drop()
}

// expire forgets what is too old: sightings, and messages that every group has had.
func (t *topic) expire(now time.Time) {
	t.window.expire(now)
	t.advance()
	for t.log.base < t.spare && now.Sub(t.log.at(t.log.base).at) >= t.settings.age {
		t.drop()
	}
}

// advance moves spare: to the slowest group; where there are only readers, to the end.
func (t *topic) advance() {
	if len(t.groups)+len(t.readers) == 0 {
		return // nobody has had them: they wait for the first group
	}
	slowest := t.log.next
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
	for t.log.base < t.spare && !t.fits(size) {
		t.drop()
	}
	return t.fits(size)
}

func (t *topic) fits(size int) bool {
	held, bytes := 0, 0
	for _, g := range t.groups {
		held, bytes = max(held, g.held()), max(bytes, g.bytes)
	}
	kept := t.log.len()
	if kept == 0 && held == 0 {
		return true // even one that is larger than the topic
	}
	unread := int(t.log.next - t.spare)
	return kept < t.settings.messages && unread+held < t.settings.messages && t.bytes+bytes+size <= t.settings.bytes
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

func (t *topic) wakeAll() {
	for _, g := range t.groups {
		g.wake()
	}
	for _, g := range t.readers {
		g.wake()
	}
}

// open adds a member to a group, or a reader.
func (t *topic) open(s messaging.Spec) (*subscription, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Now())
	g := t.named[s.Group]
	if s.Group == "" || g == nil {
		start, err := t.start(s.Start)
		if err != nil {
			return nil, retry.Permanent(err)
		}
		g = &group{topic: t, name: s.Group, next: start, ordered: s.Ordered && s.Group != ""}
		if g.ordered {
			g.lanes = make(map[string]*lane)
		}
		if s.Group == "" {
			t.readers = append(t.readers, g)
		} else {
			t.groups = append(t.groups, g)
			t.named[s.Group] = g
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
		return t.log.base, nil
	}
	if at, ok := s.Time(); ok {
		n := t.log.base
		for n < t.log.next && t.log.at(n).at.Before(at) {
			n++
		}
		return n, nil
	}
	cursors := s.Cursors()
	switch {
	case len(cursors) == 0:
		return t.log.next, nil
	case len(cursors) > 1:
		return 0, fmt.Errorf("membus: %w: more than one cursor", messaging.ErrUnsupported)
	}
	n, err := strconv.ParseUint(string(cursors[0]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("membus: cursor %q is none of this transport", string(cursors[0]))
	}
	return min(n+1, t.log.next), nil // below base it is a gap, which Receive tells
}
