package keyed

import (
	"sync"
	"time"
)

// Map is a bounded map whose values are made at first use. Any number of goroutines may use it at once.
type Map[K comparable, V any] struct {
	most   int
	idle   time.Duration
	create func(K) V
	keep   func(V) bool

	mu      sync.Mutex
	entries map[K]*entry[K, V]
	recent  list[K, V] // by use, the latest first
	kept    list[K, V] // were the oldest of recent and keep spared them; by use as well
}

// New returns an empty Map of at most the given number of keys (at least 1), each forgotten when it has not been used
// for idle (zero or less: never). create makes the value of a key. keep says whether a value should be evicted last, and
// not for being idle; nil: none. Both are called with the lock of the Map held, so they must not call it.
func New[K comparable, V any](most int, idle time.Duration, create func(K) V, keep func(V) bool) *Map[K, V] {
	if keep == nil {
		keep = func(V) bool { return false }
	}
	m := &Map[K, V]{most: max(most, 1), idle: idle, create: create, keep: keep, entries: map[K]*entry[K, V]{}}
	m.recent.init()
	m.kept.init()
	return m
}

// Get returns the value of key, made at first use. A hit allocates nothing.
func (m *Map[K, V]) Get(key K) V {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if ok && m.stale(e, now) {
		m.drop(e)
		ok = false
	}
	if !ok {
		e = m.add(key, now)
	}
	e.used = now
	m.recent.moveToFront(e)
	return e.value
}

// Each calls f for each key that has not been forgotten, in no order, without a lock held.
func (m *Map[K, V]) Each(f func(K, V)) {
	m.mu.Lock()
	m.expire(time.Now())
	all := make([]*entry[K, V], 0, len(m.entries))
	for _, e := range m.entries {
		all = append(all, e)
	}
	m.mu.Unlock()
	for _, e := range all {
		f(e.key, e.value)
	}
}

// Len is the number of keys that have not been forgotten.
func (m *Map[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	return len(m.entries)
}

func (m *Map[K, V]) add(key K, now time.Time) *entry[K, V] {
	e := &entry[K, V]{key: key, value: m.create(key)}
	m.expire(now)
	if len(m.entries) >= m.most {
		m.evict()
	}
	m.entries[key] = e
	m.recent.pushFront(e)
	return e
}

// expire drops what is idle. Each entry is spared at most once between two uses, so that the price of looking at it
// belongs to the use.
func (m *Map[K, V]) expire(now time.Time) {
	for e := m.kept.last(); e != nil && m.stale(e, now); e = m.kept.last() {
		m.drop(e)
	}
	for e := m.recent.last(); e != nil && m.old(e, now); e = m.recent.last() {
		m.dropOrSpare(e)
	}
}

// evict makes room for one entry: the least recently used, but those to be kept only where there is no other.
func (m *Map[K, V]) evict() {
	if e := m.kept.last(); e != nil && !m.keep(e.value) {
		m.drop(e)
		return
	}
	for e := m.recent.last(); e != nil; e = m.recent.last() {
		if m.dropOrSpare(e) {
			return
		}
	}
	m.drop(m.kept.last())
}

func (m *Map[K, V]) dropOrSpare(e *entry[K, V]) bool {
	if m.keep(e.value) {
		m.kept.moveToFront(e)
		return false
	}
	m.drop(e)
	return true
}

func (m *Map[K, V]) drop(e *entry[K, V]) {
	e.unlink()
	delete(m.entries, e.key)
}

func (m *Map[K, V]) old(e *entry[K, V], now time.Time) bool {
	return m.idle > 0 && now.Sub(e.used) >= m.idle
}

func (m *Map[K, V]) stale(e *entry[K, V], now time.Time) bool {
	return m.old(e, now) && !m.keep(e.value)
}
