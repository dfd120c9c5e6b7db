package messaging

import (
	"math/rand/v2"
	"time"
)

// brakeAfter is how many different messages must fail, none succeeding in between, before it is taken for an outage of
// something that all of them need.
const brakeAfter = 10

// The interval between two probes doubles between these, so that the end of an outage is seen soon after a short one,
// and a long one costs few messages their attempts.
const (
	brakeLeast = 500 * time.Millisecond
	brakeMost  = 30 * time.Second
)

// A brake keeps an outage from making dead letters of a whole queue: while it is on, one message at a time is tried. A
// probe that fails is a failed attempt like any other; one that succeeds takes the brake off.
type brake struct {
	streak   int // messages that failed for the first time since the last success
	on       bool
	interval time.Duration
	next     time.Time // when the next probe may begin
}

// failed counts a failed attempt of a message. It reports whether the brake has come on.
func (b *brake) failed(attempt int, now time.Time) bool {
	if attempt == 1 {
		b.streak++
	}
	if b.on || b.streak < brakeAfter {
		return false
	}
	b.on, b.interval = true, brakeLeast
	b.next = now.Add(b.interval)
	return true
}

// succeeded reports whether the brake has come off.
func (b *brake) succeeded() bool {
	was := b.on
	*b = brake{}
	return was
}

// holds reports whether nothing may begin now.
func (b *brake) holds() bool { return b.on && time.Now().Before(b.next) }

// probe is called when a message begins.
func (b *brake) probe() {
	if !b.on {
		return
	}
	b.interval = min(2*b.interval, brakeMost)
	b.next = time.Now().Add(b.interval/2 + rand.N(b.interval/2))
}

func (r *run) braked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.brake.on
}
