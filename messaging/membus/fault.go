package membus

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A Fault is what a Bus does wrong, for tests of what depends on it. Counts add up over several calls of Inject.
type Fault struct {
	RefuseSends  int  // the next so many Sends store nothing of a topic
	LoseConfirms int  // the next so many Sends store everything and report it as unknown
	Duplicate    int  // the next so many messages are stored twice
	DropAcks     int  // the next so many verdicts are lost, and fail
	ExpireLeases bool // every lease ends now
	Disconnect   bool // every open subscription fails
}

// The errors of injected faults.
var (
	errRefused      = errors.New("membus: injected: not stored")
	errUnconfirmed  = errors.New("membus: injected: confirmation lost")
	errDropped      = errors.New("membus: injected: verdict lost")
	errDisconnected = errors.New("membus: injected: disconnected")
)

// faults is the faults still to come. Without any, it costs one look.
type faults struct {
	armed atomic.Bool

	mu   sync.Mutex
	f    Fault
	subs []*subscription // open
}

// Inject makes the Bus misbehave from now on.
func (b *Bus) Inject(f Fault) {
	b.faults.mu.Lock()
	have := &b.faults.f
	have.RefuseSends += f.RefuseSends
	have.LoseConfirms += f.LoseConfirms
	have.Duplicate += f.Duplicate
	have.DropAcks += f.DropAcks
	b.faults.armed.Store(true)
	subs := append([]*subscription(nil), b.faults.subs...)
	b.faults.mu.Unlock()
	for _, s := range subs {
		s.fail(f)
	}
}

// fail breaks a subscription, or ends the leases of its group.
func (s *subscription) fail(f Fault) {
	g, t := s.group, s.group.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.ExpireLeases {
		now := time.Now()
		for _, it := range g.items {
			if !it.until.IsZero() {
				it.until = now
			}
		}
		g.expiry = now
		g.wake()
	}
	if f.Disconnect {
		s.broken = errDisconnected
		g.unlist(s)
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

func (f *faults) add(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs = append(f.subs, s)
}

func (f *faults) remove(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.subs {
		if other == s {
			f.subs = append(f.subs[:i], f.subs[i+1:]...)
			return
		}
	}
}

// one takes one off a count.
func (f *faults) one(count func(*Fault) *int) bool {
	if !f.armed.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := count(&f.f)
	if *n == 0 {
		return false
	}
	*n--
	return true
}

func (f *faults) send() error {
	if f.one(func(f *Fault) *int { return &f.RefuseSends }) {
		return errRefused
	}
	return nil
}

func (f *faults) confirm() error {
	if f.one(func(f *Fault) *int { return &f.LoseConfirms }) {
		return errUnconfirmed
	}
	return nil
}

func (f *faults) duplicate() bool { return f.one(func(f *Fault) *int { return &f.Duplicate }) }

func (f *faults) ack() error {
	if f.one(func(f *Fault) *int { return &f.DropAcks }) {
		return errDropped
	}
	return nil
}
