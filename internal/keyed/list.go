package keyed

import "time"

// entry is a key with its value, in one list at a time. It is its own list element: container/list would cost an
// allocation and an interface for each.
type entry[K comparable, V any] struct {
	key        K
	value      V
	used       time.Time
	next, prev *entry[K, V]
}

func (e *entry[K, V]) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev = nil, nil
}

// list is a ring around its root.
type list[K comparable, V any] struct{ root entry[K, V] }

func (l *list[K, V]) init() { l.root.next, l.root.prev = &l.root, &l.root }

func (l *list[K, V]) last() *entry[K, V] {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}

func (l *list[K, V]) pushFront(e *entry[K, V]) {
	e.prev, e.next = &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
}

// moveToFront takes e from whatever list it is in.
func (l *list[K, V]) moveToFront(e *entry[K, V]) {
	if l.root.next == e {
		return
	}
	e.unlink()
	l.pushFront(e)
}
