package membus

// A ring is a queue of numbered elements. It grows, and does not shrink.
type ring[T any] struct {
	buf  []T    // a power of two; element n is at buf[n&(len-1)]
	base uint64 // number of the oldest element
	next uint64 // number of the next element
}

func (r *ring[T]) len() int { return int(r.next - r.base) }

func (r *ring[T]) at(n uint64) *T { return &r.buf[n&uint64(len(r.buf)-1)] }

// push returns the place of a new element. It may hold an old value.
func (r *ring[T]) push() *T {
	if r.len() == len(r.buf) {
		old := *r
		r.buf = make([]T, max(64, 2*len(old.buf)))
		for n := r.base; n < r.next; n++ {
			*r.at(n) = *old.at(n)
		}
	}
	r.next++
	return r.at(r.next - 1)
}

// drop forgets the oldest element.
func (r *ring[T]) drop() {
	var zero T
	*r.at(r.base) = zero
	r.base++
}
