package membus

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A window knows what was published lately. The index holds no pointers, so that its size costs the collector nothing;
// the whole ID is compared before a message is dropped. Two IDs of one hash shadow each other: the older one is
// forgotten early.
type window struct {
	span  time.Duration
	most  int
	seed  maphash.Seed
	index map[uint64]uint64 // hash of an ID to its number in seen
	seen  ring[sighting]
}

type sighting struct {
	identity
	hash uint64
	at   time.Time
}

// An identity is what a message is known by. An ID is unique for its source, no more.
type identity struct{ source, id string }

func newWindow(span time.Duration, most int) window {
	return window{span: span, most: most, seed: maphash.MakeSeed(), index: make(map[uint64]uint64)}
}

// key returns what m is known by.
func (w *window) key(m *messaging.Message) (identity, uint64) {
	known := identity{m.Source, m.ID}
	for k := range m.Header {
		if strings.HasPrefix(k, "tandem-dead-") { // a copy, that shares its ID with an original
			known = identity{id: messaging.DedupeID(m)}
			break
		}
	}
	return known, maphash.Comparable(w.seed, known)
}

func (w *window) has(known identity, hash uint64) bool {
	n, ok := w.index[hash]
	return ok && w.seen.at(n).identity == known
}

func (w *window) add(known identity, hash uint64, now time.Time) {
	for w.seen.len() >= w.most {
		w.forget()
	}
	w.index[hash] = w.seen.next
	*w.seen.push() = sighting{known, hash, now}
}

// expire forgets what is too old.
func (w *window) expire(now time.Time) {
	for w.seen.len() > 0 && now.Sub(w.seen.at(w.seen.base).at) >= w.span {
		w.forget()
	}
}

func (w *window) forget() {
	oldest := w.seen.at(w.seen.base)
	if w.index[oldest.hash] == w.seen.base {
		delete(w.index, oldest.hash)
	}
	w.seen.drop()
}
