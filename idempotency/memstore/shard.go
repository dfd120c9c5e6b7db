package memstore

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

const (
	shards  = 64
	none    = -1 // no record
	passing = 2  // records looked at by each Begin
)

// A shard is a table of records, found by a 64-bit hash and then by the whole key: two keys of one hash share a chain.
// Records live in one slice and name each other by index, so that the collector has little to follow and removing one
// is a matter of two numbers.
type shard struct {
	store *Store

	mu      sync.Mutex       // guards what follows
	index   map[uint64]int32 // the first record of each hash
	records []record
	free    int32         // the first unused record
	cursor  int           // where the sweep in passing goes on
	soonest time.Duration // nothing expires earlier
	fence   uint64        // grows with every claim, for all keys of the shard
}

// A record is free, claimed or done.
type record struct {
	state   state
	kind    uint8 // of the result, with done
	attempt int32
	next    int32 // of the chain, or of the free ones
	hash    uint64
	fence   uint64
	until   time.Duration // end of the lease; when done, of the retention
	retain  time.Duration // how long a claim outlives its lease
	at      time.Duration // when it was done
	size    int64
	key     idempotency.Key
	print   string
	kept    *kept // nil where the result has neither Meta nor Body
}

type kept struct {
	meta map[string][]string
	body []byte
}

type state uint8

const (
	unused state = iota
	claimed
	done
)

// end is when the record is gone.
func (r *record) end() time.Duration {
	if r.state == claimed {
		return add(r.until, r.retain)
	}
	return r.until
}

// init has fences begin with the time, so that those of the next process are above those of this one.
func (sh *shard) init(s *Store, fence uint64) {
	sh.store, sh.index, sh.free, sh.soonest, sh.fence = s, make(map[uint64]int32), none, math.MaxInt64, fence
}

// begin reports full instead of a claim where there is no room for a new record.
func (sh *shard) begin(hash uint64, k idempotency.Key, o idempotency.BeginOptions, now time.Duration) (_ idempotency.Claim, full bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.pass(now)
	r := sh.find(hash, k, now)
	if r == nil {
		if r = sh.insert(hash, k, o.Fingerprint); r == nil {
			return idempotency.Claim{}, true
		}
		return idempotency.Claim{Ticket: sh.own(r, k, o, now)}, false
	}
	switch {
	case r.print != "" && len(o.Fingerprint) > 0 && r.print != string(o.Fingerprint):
		return idempotency.Claim{Status: idempotency.Mismatch}, false
	case r.state == done:
		return idempotency.Claim{Status: idempotency.Replay, Result: sh.result(r)}, false
	case now < r.until:
		return idempotency.Claim{Status: idempotency.InFlight, RetryAfter: r.until - now}, false
	case o.Park:
		return idempotency.Claim{Status: idempotency.Unknown}, false
	default:
		return idempotency.Claim{Ticket: sh.own(r, k, o, now)}, false
	}
}

// own makes the caller the next owner of r.
func (sh *shard) own(r *record, k idempotency.Key, o idempotency.BeginOptions, now time.Duration) idempotency.Ticket {
	sh.fence++
	r.state = claimed
	r.fence = sh.fence
	r.attempt++
	r.until = add(now, o.Lease)
	r.retain = o.Retain
	sh.soonest = min(sh.soonest, r.end())
	return idempotency.Ticket{Key: k, Fence: r.fence, Attempt: int(r.attempt)}
}

func (sh *shard) extend(hash uint64, t idempotency.Ticket, lease, now time.Duration) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.find(hash, t.Key, now)
	if r == nil || r.fence != t.Fence || r.state != claimed {
		return idempotency.ErrLost
	}
	r.until = add(now, lease)
	sh.soonest = min(sh.soonest, r.end()) // the new lease may be shorter
	return nil
}

// result returns a copy: the caller may do with it what he likes.
func (sh *shard) result(r *record) idempotency.Result {
	res := idempotency.Result{Kind: idempotency.Kind(r.kind), At: sh.store.base.Add(r.at)}
	if r.kept != nil {
		res.Meta, res.Body = cloneMeta(r.kept.meta), slices.Clone(r.kept.body)
	}
	return res
}

func (sh *shard) complete(hash uint64, t idempotency.Ticket, res idempotency.Result, retain, now time.Duration) error {
	n := cost(res)
	var k *kept
	if n > 0 {
		k = &kept{cloneMeta(res.Meta), slices.Clone(res.Body)}
	}

	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.find(hash, t.Key, now)
	switch {
	case r == nil || r.fence != t.Fence:
		return idempotency.ErrLost
	case r.state == done:
		return nil // the answer to the first Complete was lost
	}
	if !sh.store.room(0, n) {
		return idempotency.ErrFull
	}
	r.state = done
	r.kind, r.at, r.kept = uint8(res.Kind), now, k
	r.size += n
	r.until = add(now, retain)
	sh.soonest = min(sh.soonest, r.until)
	return nil
}

func (sh *shard) release(hash uint64, t idempotency.Ticket, now time.Duration) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.find(hash, t.Key, now)
	if r == nil || r.fence != t.Fence || r.state != claimed {
		return idempotency.ErrLost
	}
	sh.remove(hash, r)
	return nil
}

// find returns the record of k that has not expired.
func (sh *shard) find(hash uint64, k idempotency.Key, now time.Duration) *record {
	i, ok := sh.index[hash]
	if !ok {
		return nil
	}
	for ; i != none; i = sh.records[i].next {
		r := &sh.records[i]
		if r.key != k {
			continue
		}
		if now >= r.end() {
			sh.remove(hash, r)
			return nil
		}
		return r
	}
	return nil
}

// insert returns a new record of k, or nil where the store has no room.
func (sh *shard) insert(hash uint64, k idempotency.Key, print []byte) *record {
	size := int64(len(k.Scope) + len(k.ID) + len(print))
	if !sh.store.room(1, size) {
		return nil
	}
	i := sh.free
	if i == none {
		i = int32(len(sh.records))
		sh.records = append(sh.records, record{})
	} else {
		sh.free = sh.records[i].next
	}
	head, ok := sh.index[hash]
	if !ok {
		head = none
	}
	// One string for both parts: one allocation, and nothing of the caller's memory is held.
	both := k.Scope + k.ID
	sh.records[i] = record{
		next: head, hash: hash, size: size, print: string(print),
		key: idempotency.Key{Scope: both[:len(k.Scope)], ID: both[len(k.Scope):]},
	}
	sh.index[hash] = i
	return &sh.records[i]
}

// remove takes r out of its chain and frees it.
func (sh *shard) remove(hash uint64, r *record) {
	sh.store.room(-1, -r.size)
	i := sh.index[hash]
	if &sh.records[i] == r {
		if r.next == none {
			delete(sh.index, hash)
		} else {
			sh.index[hash] = r.next
		}
	} else {
		before := &sh.records[i]
		for &sh.records[before.next] != r {
			before = &sh.records[before.next]
		}
		i, before.next = before.next, r.next
	}
	*r = record{next: sh.free}
	sh.free = i
}

// pass looks at a few records and removes those that have expired. Every Begin pays for two, so that what expires is
// gone after as many claims as half the table has records.
func (sh *shard) pass(now time.Duration) {
	if now < sh.soonest {
		return
	}
	for range min(passing, len(sh.records)) {
		if sh.cursor >= len(sh.records) {
			sh.cursor = 0
		}
		r := &sh.records[sh.cursor]
		if r.state != unused && now >= r.end() {
			sh.remove(r.hash, r)
		}
		sh.cursor++
	}
}

// sweep removes all that has expired, and is free where nothing can have.
func (sh *shard) sweep(now time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if now < sh.soonest {
		return
	}
	sh.soonest = math.MaxInt64
	for i := range sh.records {
		r := &sh.records[i]
		switch {
		case r.state == unused:
		case now >= r.end():
			sh.remove(r.hash, r)
		default:
			sh.soonest = min(sh.soonest, r.end())
		}
	}
}

// cost is what a result takes: its size, and what names and values without a byte take, too.
func cost(res idempotency.Result) int64 {
	const name, value = 48, 16 // entries of a map and of a slice
	n := int64(res.Size())
	for _, vs := range res.Meta {
		n += name + value*int64(len(vs))
	}
	return n
}

func cloneMeta(m map[string][]string) map[string][]string {
	m = maps.Clone(m)
	for k, vs := range m {
		m[k] = slices.Clone(vs)
	}
	return m
}
