package idempotencytest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

// A Harness is what Run needs to know of a store.
type Harness struct {
	// New returns an empty Store. It is called once per case, within the bubble of the case; what it opens is closed by
	// tb.Cleanup, which runs within the bubble too. Required.
	New func(tb testing.TB) idempotency.Store
	// Real: the store cannot live in a bubble; waits are real and short. Zero: each case has a bubble.
	Real bool
	// Slack is how much later than promised the store may notice that something has expired; never earlier. Zero: exact.
	Slack time.Duration
	// Keys is how many keys the case of many keys uses. Zero: 100000.
	Keys int
	// Claimers is how many claim one key at once. Zero: 64.
	Claimers int
}

// Run tests a store. Each rule is a subtest of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatal("idempotencytest: Harness.New is missing")
	}
	if h.Keys == 0 {
		h.Keys = 100_000
	}
	if h.Claimers == 0 {
		h.Claimers = 64
	}
	for _, r := range rules {
		t.Run(r.words, func(t *testing.T) {
			play := func(t *testing.T) { r.play(newScene(t, h)) }
			if h.Real {
				play(t)
				return
			}
			synctest.Test(t, play)
		})
	}
}

// A rule is one sentence of the contract.
type rule struct {
	words string
	play  func(*scene)
}

// A scene is the dialect of the rules: what does not happen as said ends the case.
type scene struct {
	*testing.T
	Harness
	ctx      context.Context
	store    idempotency.Store
	promises idempotency.Promises
	lease    time.Duration
	retain   time.Duration
}

func newScene(t *testing.T, h Harness) *scene {
	s := &scene{T: t, Harness: h, ctx: t.Context(), store: h.New(t)}
	s.promises = s.store.Promises()
	s.lease, s.retain = 10*time.Second, time.Hour
	if h.Real {
		s.lease, s.retain = time.Second, 5*time.Second
	}
	s.lease = max(s.lease, s.promises.MinLease)
	return s
}

func key(id string) idempotency.Key { return idempotency.Key{Scope: "kit", ID: id} }

func print(b string) func(*idempotency.BeginOptions) {
	return func(o *idempotency.BeginOptions) { o.Fingerprint = []byte(b) }
}

func park(o *idempotency.BeginOptions) { o.Park = true }

// try is Begin with the scene's lease and retention.
func (s *scene) try(k idempotency.Key, options ...func(*idempotency.BeginOptions)) (idempotency.Claim, error) {
	o := idempotency.BeginOptions{Lease: s.lease, Retain: s.retain}
	for _, set := range options {
		set(&o)
	}
	return s.store.Begin(s.ctx, k, o)
}

func (s *scene) begin(want idempotency.Status, k idempotency.Key, options ...func(*idempotency.BeginOptions)) idempotency.Claim {
	s.Helper()
	c, err := s.try(k, options...)
	if err != nil {
		s.Fatalf("Begin: got error %v, want %v", err, want)
	}
	if c.Status != want {
		s.Fatalf("Begin: got %v, want %v", c.Status, want)
	}
	return c
}

func (s *scene) own(k idempotency.Key, options ...func(*idempotency.BeginOptions)) idempotency.Ticket {
	s.Helper()
	return s.begin(idempotency.Owned, k, options...).Ticket
}

func (s *scene) replay(want string, k idempotency.Key, options ...func(*idempotency.BeginOptions)) {
	s.Helper()
	c := s.begin(idempotency.Replay, k, options...)
	if got := string(c.Result.Body); got != want {
		s.Fatalf("Replay: got body %q, want %q", got, want)
	}
}

func (s *scene) complete(t idempotency.Ticket, body string) {
	s.Helper()
	s.must(s.store.Complete(s.ctx, t, value(body), s.retain), "Complete")
}

func (s *scene) extend(t idempotency.Ticket) idempotency.Ticket {
	s.Helper()
	t, err := s.store.Extend(s.ctx, t, s.lease)
	s.must(err, "Extend")
	return t
}

func (s *scene) release(t idempotency.Ticket) {
	s.Helper()
	s.must(s.store.Release(s.ctx, t), "Release")
}

func (s *scene) must(err error, op string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: got error %v, want none", op, err)
	}
}

func (s *scene) lost(err error, op string) {
	s.Helper()
	if !errors.Is(err, idempotency.ErrLost) {
		s.Fatalf("%s: got error %v, want ErrLost", op, err)
	}
}

// allLost says that t is the right to nothing.
func (s *scene) allLost(t idempotency.Ticket) {
	s.Helper()
	_, err := s.store.Extend(s.ctx, t, s.lease)
	s.lost(err, "Extend")
	s.lost(s.store.Complete(s.ctx, t, value("a zombie's"), s.retain), "Complete")
	s.lost(s.store.Release(s.ctx, t), "Release")
}

func (s *scene) fails(err error, op string) {
	s.Helper()
	if err == nil {
		s.Fatalf("%s: got no error, want one", op)
	}
}

// passLease waits until a lease that started now has passed, as the store sees it.
func (s *scene) passLease() { time.Sleep(s.lease + s.Slack) }

func value(body string) idempotency.Result {
	return idempotency.Result{Kind: idempotency.Value, Body: []byte(body)}
}
