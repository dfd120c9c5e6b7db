package idempotencytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

var rules = []rule{
	{"one of many claimers owns a new key", oneOwns},
	{"one of many claimers takes over a claim that ended", oneTakesOver},
	{"a duplicate of work under way is in flight, and is told when the lease ends", inFlight},
	{"a lease holds to its edge and not longer", leaseEdge},
	{"an extended lease starts anew", extension},
	{"an extension whose answer was lost leaves the old ticket good", lostExtension},
	{"an owner that lost its claim can do nothing", zombie},
	{"an owner that lost its claim can do nothing, also when the next one is done", zombieAfterDone},
	{"a completion after the lease is as promised, if nobody took over", lateComplete},
	{"an extension after the lease is as promised, if nobody took over", lateExtend},
	{"a release gives the key free at once", releases},
	{"a storm of releases never has two owners and loses nothing", releaseStorm},
	{"a fence grows with every owner", fenceGrows},
	{"an attempt counts the owners in a row that lost their claim", attempts},
	{"a claim that ended is parked as promised", parks},
	{"another fingerprint is a mismatch in every state", mismatch},
	{"an empty fingerprint is not compared", noFingerprint},
	{"a fingerprint stays with the record for life, whoever takes it over", fingerprintStays},
	{"a result comes back as it was given", resultComesBack},
	{"a result of names and values without any bytes comes back", smallResults},
	{"every kind of result comes back, with its time", kinds},
	{"a second completion is nil and changes nothing", completeTwice},
	{"a release after the completion is refused", releaseAfterComplete},
	{"a result is kept to the edge of its retention and not longer", retentionEdge},
	{"a claim is forgotten when its lease and its retention are over", claimForgotten},
	{"an extension counts from when it is made, also a shorter one", shorterExtension},
	{"a retention of centuries is a long one", centuries},
	{"distinct keys never meet", distinctKeys},
	{"the two parts of a key are framed, whole and any bytes", keyHygiene},
	{"an unusable key is refused", invalidKeys},
	{"unusable options are refused", invalidOptions},
	{"a result over the promised size is refused, a tombstone is not", tooLarge},
	{"an ended context is an error", endedContext},
}

func (s *scene) race(k idempotency.Key) (owners []idempotency.Ticket) {
	s.Helper()
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		gate = make(chan struct{})
	)
	for range s.Claimers {
		wg.Go(func() {
			<-gate
			c, err := s.try(k)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				s.Errorf("Begin: got error %v, want none", err)
			case c.Status == idempotency.Owned:
				owners = append(owners, c.Ticket)
			case c.Status != idempotency.InFlight:
				s.Errorf("Begin: got %v, want owned or in flight", c.Status)
			}
		})
	}
	close(gate)
	wg.Wait()
	return owners
}

func oneOwns(s *scene) {
	for i := range 10 {
		if owners := s.race(key(fmt.Sprint("k", i))); len(owners) != 1 {
			s.Fatalf("got %d owners, want 1", len(owners))
		}
	}
}

func oneTakesOver(s *scene) {
	first := s.own(key("k"))
	s.passLease()
	owners := s.race(key("k"))
	if len(owners) != 1 {
		s.Fatalf("got %d owners, want 1", len(owners))
	}
	s.allLost(first)
	s.complete(owners[0], "second")
	s.replay("second", key("k"))
}

func inFlight(s *scene) {
	s.own(key("k"))
	c := s.begin(idempotency.InFlight, key("k"))
	if c.RetryAfter <= 0 || c.RetryAfter > s.lease {
		s.Fatalf("RetryAfter: got %v, want within (0, %v]", c.RetryAfter, s.lease)
	}
	time.Sleep(s.lease / 2)
	c = s.begin(idempotency.InFlight, key("k"))
	if c.RetryAfter <= 0 || c.RetryAfter > s.lease/2+s.Slack {
		s.Fatalf("RetryAfter after half of the lease: got %v, want within (0, %v]", c.RetryAfter, s.lease/2+s.Slack)
	}
}

// edge is how near to a limit a case goes.
func (s *scene) edge() time.Duration {
	if s.Real {
		return 200 * time.Millisecond
	}
	return time.Nanosecond
}

func leaseEdge(s *scene) {
	s.own(key("k"))
	time.Sleep(s.lease - s.edge())
	s.begin(idempotency.InFlight, key("k"))
	time.Sleep(s.edge() + s.Slack)
	s.own(key("k"))
}

func extension(s *scene) {
	t := s.own(key("k"))
	first := t
	for range 5 {
		time.Sleep(s.lease - s.lease/4)
		t = s.extend(t)
		s.begin(idempotency.InFlight, key("k"))
	}
	if t.Fence != first.Fence || t.Attempt != first.Attempt || t.Key != first.Key {
		s.Fatalf("Extend changed the ticket: got %d %d %v, want %d %d %v",
			t.Fence, t.Attempt, t.Key, first.Fence, first.Attempt, first.Key)
	}
	s.complete(t, "done")
	s.replay("done", key("k"))
}

func lostExtension(s *scene) {
	for name, end := range map[string]func(idempotency.Ticket){
		"completed": func(t idempotency.Ticket) { s.complete(t, "done"); s.replay("done", t.Key) },
		"released":  func(t idempotency.Ticket) { s.release(t); s.own(t.Key) },
		"extended":  func(t idempotency.Ticket) { s.complete(s.extend(t), "done"); s.replay("done", t.Key) },
	} {
		t := s.own(key(name))
		s.extend(t)
		s.extend(t)
		end(t)
	}
}

func zombie(s *scene) {
	a := s.own(key("k"))
	s.passLease()
	b := s.own(key("k"))
	s.allLost(a)
	s.begin(idempotency.InFlight, key("k"))
	s.complete(s.extend(b), "b")
	s.replay("b", key("k"))
}

func zombieAfterDone(s *scene) {
	a := s.own(key("k"))
	s.passLease()
	b := s.own(key("k"))
	s.complete(b, "b")
	s.allLost(a)
	s.replay("b", key("k"))
}

func lateComplete(s *scene) {
	t := s.own(key("k"))
	s.passLease()
	time.Sleep(s.retain / 2)
	err := s.store.Complete(s.ctx, t, value("late"), s.retain)
	if !s.promises.LateComplete {
		s.lost(err, "Complete after the lease")
		s.own(key("k"))
		return
	}
	s.must(err, "Complete after the lease")
	s.replay("late", key("k"))
}

func lateExtend(s *scene) {
	t := s.own(key("k"))
	s.passLease()
	next, err := s.store.Extend(s.ctx, t, s.lease)
	if !s.promises.LateComplete {
		s.lost(err, "Extend after the lease")
		return
	}
	s.must(err, "Extend after the lease")
	s.begin(idempotency.InFlight, key("k"))
	s.complete(next, "late")
}

func releases(s *scene) {
	t := s.own(key("k"), print("one"))
	s.release(t)
	s.allLost(t)
	next := s.own(key("k"), print("another"))
	if next.Attempt != 1 {
		s.Fatalf("Attempt after a release: got %d, want 1", next.Attempt)
	}
	s.allLost(t)
	s.complete(next, "done")
	s.replay("done", key("k"), print("another"))
}

func releaseStorm(s *scene) {
	const each = 10
	var (
		wg     sync.WaitGroup
		owners atomic.Int32
		total  atomic.Int32
		last   uint64 // written by the owner only
	)
	for range s.Claimers / 4 {
		wg.Go(func() {
			for range each {
				c, err := s.try(key("k"))
				switch {
				case err != nil:
					s.Errorf("Begin: got error %v, want none", err)
					return
				case c.Status == idempotency.InFlight:
					continue
				case c.Status != idempotency.Owned:
					s.Errorf("Begin: got %v, want owned or in flight", c.Status)
					return
				}
				if n := owners.Add(1); n != 1 {
					s.Errorf("got %d owners at once, want 1", n)
				}
				if c.Ticket.Fence <= last {
					s.Errorf("Fence: got %d after %d, want more", c.Ticket.Fence, last)
				}
				last = c.Ticket.Fence
				total.Add(1)
				owners.Add(-1)
				if err := s.store.Release(s.ctx, c.Ticket); err != nil {
					s.Errorf("Release: got error %v, want none", err)
				}
			}
		})
	}
	wg.Wait()
	if total.Load() == 0 {
		s.Fatal("nobody owned the key")
	}
	s.own(key("k"))
}

func fenceGrows(s *scene) {
	var last uint64
	for i := range 6 {
		t := s.own(key("k"))
		if t.Fence <= last {
			s.Fatalf("Fence of owner %d: got %d after %d, want more", i+1, t.Fence, last)
		}
		last = t.Fence
		if i%2 == 0 {
			s.release(t)
		} else {
			s.passLease()
		}
	}
}

func attempts(s *scene) {
	for want := 1; want <= 3; want++ {
		if t := s.own(key("k")); t.Attempt != want {
			s.Fatalf("Attempt: got %d, want %d", t.Attempt, want)
		}
		s.passLease()
	}
}

func parks(s *scene) {
	if !s.promises.Park {
		_, err := s.try(key("k"), park)
		s.fails(err, "Begin with Park")
		return
	}
	t := s.own(key("k"), park)
	s.begin(idempotency.InFlight, key("k"), park)
	s.passLease()
	s.begin(idempotency.Unknown, key("k"), park)
	time.Sleep(s.retain / 2)
	s.begin(idempotency.Unknown, key("k"), park)
	if s.promises.LateComplete {
		s.complete(t, "late")
		s.replay("late", key("k"), park)
	}

	// A clean release leaves nothing to be unknown.
	t = s.own(key("released"), park)
	s.release(t)
	s.own(key("released"), park)
	// Who does not park takes over.
	s.passLease()
	s.own(key("released"))
}

func mismatch(s *scene) {
	t := s.own(key("k"), print("one"))
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	t = s.extend(t)
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	s.passLease()
	if s.promises.LateComplete {
		s.begin(idempotency.Mismatch, key("k"), print("another"))
		s.extend(t)
		s.passLease()
		s.begin(idempotency.Mismatch, key("k"), print("another"))
	}
	t = s.own(key("k"), print("one"))
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	s.complete(t, "done")
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	s.begin(idempotency.Mismatch, key("k"), print("on"))
	s.replay("done", key("k"), print("one"))
}

func noFingerprint(s *scene) {
	t := s.own(key("k"), print("one"))
	s.begin(idempotency.InFlight, key("k"))
	s.complete(t, "done")
	s.replay("done", key("k"))

	t = s.own(key("without"))
	s.begin(idempotency.InFlight, key("without"), print("one"))
	s.complete(t, "done")
	s.replay("done", key("without"), print("one"))
	s.replay("done", key("without"), print("another"))
}

func fingerprintStays(s *scene) {
	s.own(key("k"), print("one"))
	s.passLease()
	t := s.own(key("k")) // is not compared, and takes nothing away
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	s.begin(idempotency.InFlight, key("k"), print("one"))
	s.complete(s.extend(t), "done")
	s.begin(idempotency.Mismatch, key("k"), print("another"))
	s.replay("done", key("k"), print("one"))
}

func resultComesBack(s *scene) {
	body := make([]byte, 3*256)
	for i := range body {
		body[i] = byte(i)
	}
	meta := map[string][]string{
		"Content-Type": {"text/plain"}, "Link": {"<a>", "<b>, <c>"}, "Empty": {""}, "": {"nameless"},
		"Odd": {"\n{\"}\x00", "Zoë"},
	}
	given := idempotency.Result{Body: slices.Clone(body), Meta: maps.Clone(meta)}
	given.Meta["Link"] = slices.Clone(meta["Link"])
	s.must(s.store.Complete(s.ctx, s.own(key("k")), given, s.retain), "Complete")
	// What was given belongs to the caller again, and so does what is returned.
	given.Body[0], given.Meta["Link"][0] = 'x', "x"
	delete(given.Meta, "Empty")
	for range 2 {
		got := s.begin(idempotency.Replay, key("k")).Result
		if !bytes.Equal(got.Body, body) {
			s.Fatalf("Body: got %x, want %x", got.Body, body)
		}
		if !maps.EqualFunc(got.Meta, meta, slices.Equal) {
			s.Fatalf("Meta: got %q, want %q", got.Meta, meta)
		}
		got.Body[1], got.Meta["Link"][1] = 'y', "y"
		delete(got.Meta, "Odd")
	}
}

func smallResults(s *scene) {
	for i, meta := range []map[string][]string{{"": {""}}, {"": {}}, {"": {"", ""}}} {
		k := key(fmt.Sprint(i))
		s.must(s.store.Complete(s.ctx, s.own(k), idempotency.Result{Meta: meta}, s.retain), "Complete")
		if got := s.begin(idempotency.Replay, k).Result.Meta; !maps.EqualFunc(got, meta, slices.Equal) {
			s.Fatalf("Meta: got %q, want %q", got, meta)
		}
	}
}

func kinds(s *scene) {
	for _, kind := range []idempotency.Kind{idempotency.Value, idempotency.Tombstone, idempotency.Failed} {
		k := key(kind.String())
		t := s.own(k)
		before := time.Now()
		s.must(s.store.Complete(s.ctx, t, idempotency.Result{Kind: kind}, s.retain), "Complete")
		after := time.Now()
		got := s.begin(idempotency.Replay, k).Result
		if got.Kind != kind || len(got.Body) > 0 || len(got.Meta) > 0 {
			s.Fatalf("got %v with %d bytes and %d keys of Meta, want an empty %v", got.Kind, len(got.Body), len(got.Meta), kind)
		}
		const skew = time.Minute // between this clock and a server's
		if got.At.Before(before.Add(-skew)) || got.At.After(after.Add(skew)) {
			s.Fatalf("At: got %v, want about %v", got.At, after)
		}
	}
}

func completeTwice(s *scene) {
	t := s.own(key("k"))
	s.complete(t, "first")
	s.complete(t, "second")
	s.replay("first", key("k"))

	t = s.extend(s.own(key("extended")))
	s.complete(t, "first")
	s.complete(t, "second")
	s.replay("first", key("extended"))
}

func releaseAfterComplete(s *scene) {
	t := s.own(key("k"))
	s.complete(t, "done")
	s.lost(s.store.Release(s.ctx, t), "Release after Complete")
	_, err := s.store.Extend(s.ctx, t, s.lease)
	s.lost(err, "Extend after Complete")
	s.replay("done", key("k"))
}

func retentionEdge(s *scene) {
	t := s.own(key("k"))
	time.Sleep(s.lease / 2) // the retention begins with the completion
	retain := 2 * s.retain  // and may be longer than that of the claim
	if s.Real {
		retain = s.retain
	}
	s.must(s.store.Complete(s.ctx, t, value("done"), retain), "Complete")
	time.Sleep(retain - s.edge())
	s.replay("done", key("k"))
	time.Sleep(s.edge() + s.Slack)
	next := s.own(key("k"))
	if next.Attempt != 1 {
		s.Fatalf("Attempt after the retention: got %d, want 1", next.Attempt)
	}
	if next.Fence <= t.Fence {
		s.Fatalf("Fence after the retention: got %d after %d, want more", next.Fence, t.Fence)
	}
}

func claimForgotten(s *scene) {
	t := s.own(key("k"), print("one"))
	time.Sleep(s.lease + s.retain + s.Slack)
	s.lost(s.store.Complete(s.ctx, t, value("too late"), s.retain), "Complete")
	if next := s.own(key("k"), print("another")); next.Attempt != 1 {
		s.Fatalf("Attempt after the retention: got %d, want 1", next.Attempt)
	}
}

func shorterExtension(s *scene) {
	c, err := s.store.Begin(s.ctx, key("k"), idempotency.BeginOptions{Lease: 10 * s.lease, Retain: s.retain})
	s.must(err, "Begin")
	s.extend(c.Ticket)
	s.begin(idempotency.InFlight, key("k"))
	s.passLease()
	if next := s.own(key("k")); next.Attempt != 2 {
		s.Fatalf("Attempt: got %d, want 2", next.Attempt)
	}
}

func centuries(s *scene) {
	const long = time.Duration(math.MaxInt64)
	c, err := s.store.Begin(s.ctx, key("k"), idempotency.BeginOptions{Lease: s.lease, Retain: long})
	s.must(err, "Begin")
	s.must(s.store.Complete(s.ctx, c.Ticket, value("done"), long), "Complete")
	time.Sleep(s.retain)
	s.replay("done", key("k"))
}

func distinctKeys(s *scene) {
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < s.Keys; i += workers {
				c, err := s.try(key(fmt.Sprintf(`{"order":%d}`, i)), print("same"))
				if err != nil || c.Status != idempotency.Owned {
					s.Errorf("Begin of key %d: got %v, %v, want owned", i, c.Status, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func keyHygiene(s *scene) {
	long := strings.Repeat("x", 2047)
	odd := []idempotency.Key{
		{Scope: "ab", ID: "c"},
		{Scope: "a", ID: "bc"},
		{Scope: "abc", ID: "abc"},
		{Scope: "ab\x00", ID: "c"},
		{Scope: "a", ID: "\x00b"},
		{Scope: "a\x00", ID: "b"},
		{Scope: "a", ID: "B"},
		{Scope: "a", ID: "b "},
		{Scope: "a", ID: "b"},
		{Scope: "b", ID: "a"},
		{Scope: ".", ID: ".."},
		{Scope: "*", ID: ">"},
		{Scope: "ü", ID: "\xff\xfe"},
		{Scope: "ü", ID: "\ufffd\ufffd"},
		{Scope: "u\u0308", ID: "x"},
		{Scope: "a b", ID: "c:d{e}"},
		{Scope: "long", ID: long + "1"},
		{Scope: "long", ID: long + "2"},
		{Scope: long + "1", ID: "long"},
	}
	for i, k := range odd {
		s.complete(s.own(k), fmt.Sprint(i))
	}
	for i, k := range odd {
		s.replay(fmt.Sprint(i), k)
	}
}

func invalidKeys(s *scene) {
	long := strings.Repeat("x", 2049)
	for _, k := range []idempotency.Key{{}, {Scope: "a"}, {ID: "b"}, {Scope: "a", ID: long}, {Scope: long, ID: "b"}} {
		if _, err := s.try(k); !errors.Is(err, idempotency.ErrInvalidKey) {
			s.Fatalf("Begin with a scope of %d bytes and an id of %d: got error %v, want ErrInvalidKey", len(k.Scope), len(k.ID), err)
		}
	}
}

func invalidOptions(s *scene) {
	for _, o := range []idempotency.BeginOptions{
		{},
		{Lease: -s.lease},
		{Lease: s.promises.MinLease - 1},
		{Lease: s.lease, Retain: -1},
		{Lease: s.lease, Fingerprint: make([]byte, 65)},
	} {
		_, err := s.store.Begin(s.ctx, key("k"), o)
		s.fails(err, fmt.Sprintf("Begin with %+v", o))
	}
	t := s.own(key("k"), print(strings.Repeat("x", 64)))
	_, err := s.store.Extend(s.ctx, t, 0)
	s.fails(err, "Extend by nothing")
	s.fails(s.store.Complete(s.ctx, t, value("done"), 0), "Complete for no time")
	s.complete(t, "done")
}

func tooLarge(s *scene) {
	most := s.promises.MaxBytes
	if most == 0 || most > 64<<20 {
		s.Skip("no limit within reach")
	}
	t := s.own(key("k"))
	err := s.store.Complete(s.ctx, t, value(strings.Repeat("x", most+1)), s.retain)
	if !errors.Is(err, idempotency.ErrFull) {
		s.Fatalf("Complete with %d bytes: got error %v, want ErrFull", most+1, err)
	}
	s.must(s.store.Complete(s.ctx, t, idempotency.Result{Kind: idempotency.Tombstone}, s.retain), "Complete with a tombstone")
	if got := s.begin(idempotency.Replay, key("k")).Result.Kind; got != idempotency.Tombstone {
		s.Fatalf("Kind: got %v, want a tombstone", got)
	}
	s.complete(s.own(key("fits")), strings.Repeat("x", most/2))
	s.replay(strings.Repeat("x", most/2), key("fits"))
}

func endedContext(s *scene) {
	t := s.own(key("k"))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.store.Begin(ctx, key("another"), idempotency.BeginOptions{Lease: s.lease})
	s.fails(err, "Begin")
	_, err = s.store.Extend(ctx, t, s.lease)
	s.fails(err, "Extend")
	s.fails(s.store.Complete(ctx, t, value("done"), s.retain), "Complete")
	s.fails(s.store.Release(ctx, t), "Release")
	if errors.Is(err, idempotency.ErrLost) {
		s.Fatalf("Extend: got ErrLost for an ended context")
	}
	s.complete(t, "done")
}
