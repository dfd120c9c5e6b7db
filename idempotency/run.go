package idempotency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tandemgo/tandem/retry"
)

const (
	settleTimeout = 5 * time.Second // of Complete or Release with all its tries
	settleTry     = 2 * time.Second // of one of them
	claimGrace    = time.Second     // of Begin, beyond the end of the caller's context
	pollFirst     = 5 * time.Millisecond
	pollMost      = 500 * time.Millisecond
)

// A job is one use of a Key, whoever asks for it.
type job struct {
	teller
	store    Store
	key      Key
	options  BeginOptions
	retain   time.Duration
	wait     time.Duration
	maxBytes int
}

// An outcome is what the work came to. With keep, err is kept as result.
type outcome struct {
	err    error
	keep   bool
	result Result
}

func (j *job) fill(lease, retain time.Duration) {
	if j.options.Lease == 0 {
		j.options.Lease = lease
	}
	if j.retain == 0 {
		j.retain = retain
	}
	if j.maxBytes == 0 {
		j.maxBytes = 256 << 10
	}
	if most := j.store.Promises().MaxBytes; most > 0 {
		j.maxBytes = min(j.maxBytes, most)
	}
	j.options.Retain = j.retain
}

// run claims the key, does the work and settles. A Claim that is Owned has an outcome, one that is Replay a Result; any
// other is an error. result is called after work that succeeded, when nothing can give the claim up any more.
func (j *job) run(ctx context.Context, work func(context.Context) outcome, result func() Result) (Claim, outcome, error) {
	claim, began, err := j.begin(ctx)
	switch {
	case err != nil:
		return Claim{}, outcome{}, err
	case claim.Status == Owned && ctx.Err() != nil:
		j.release(ctx, claim.Ticket)
		return Claim{}, outcome{}, fmt.Errorf("idempotency: claim: %w", context.Cause(ctx))
	case claim.Status == Replay:
		return claim, outcome{}, nil
	case claim.Status != Owned:
		return claim, outcome{}, refused(claim)
	}

	w := &working{ticket: claim.Ticket}
	inner, lose := context.WithCancelCause(context.WithValue(ctx, workingKey{}, w))
	defer lose(nil)
	k := j.keep(ctx, claim.Ticket, began, lose)

	settled := false
	defer func() {
		if !settled { // a panic or runtime.Goexit is on its way through, and goes on as it is
			j.abandon(ctx, k, w)
		}
	}()
	out := work(inner)
	t := k.end()
	if out.err != nil && !out.keep && !w.done.Load() {
		settled = true
		j.release(ctx, t)
		if lost(context.Cause(inner)) && !lost(out.err) {
			out.err = fmt.Errorf("%w (%w)", out.err, ErrLost)
		}
		return claim, out, nil
	}
	w.done.Store(true)
	switch {
	case out.err == nil:
		out.result = result()
	case !out.keep:
		out.result = Result{Kind: Tombstone}
	}
	settled = true
	if err := j.complete(ctx, t, out.result, k.late()); lost(err) && out.err == nil {
		out.err = fmt.Errorf("%w: the work may have been done twice", ErrLost)
	}
	return claim, out, nil
}

// abandon settles work that does not return.
func (j *job) abandon(ctx context.Context, k *keeper, w *working) {
	t := k.end()
	if !w.done.Load() {
		j.release(ctx, t)
		return
	}
	_ = j.complete(ctx, t, Result{Kind: Tombstone}, k.late()) // told, and there is nobody to return it to
}

// begin claims the key. While somebody else is at it, it asks again until wait is over: always through Begin, because
// the other owner may have completed, given up or vanished since the last answer.
func (j *job) begin(ctx context.Context) (Claim, time.Time, error) {
	deadline := time.Now().Add(j.wait)
	pause := pollFirst
	var claim Claim
	for {
		if ctx.Err() != nil {
			return Claim{}, time.Time{}, j.interrupted(ctx, claim)
		}
		began := time.Now() // before the call: the store's lease starts no earlier
		var err error
		claim, err = j.ask(ctx)
		left := time.Until(deadline)
		if err != nil || claim.Status != InFlight || left <= 0 {
			j.tell(ctx, Event{
				Scope: j.key.Scope, Step: StepBegin, Status: claim.Status, Attempt: claim.Ticket.Attempt, Err: err,
			})
			return claim, began, claimError(ctx, err)
		}
		sleep(ctx, min(pause/2+rand.N(pause/2), left, max(claim.RetryAfter, time.Millisecond)))
		pause = min(2*pause, pollMost)
	}
}

// interrupted is the error of a caller whose context ended before it had a claim. last is what it has been told.
func (j *job) interrupted(ctx context.Context, last Claim) error {
	err := fmt.Errorf("idempotency: claim: %w", context.Cause(ctx))
	if last.Status != InFlight {
		return err
	}
	j.tell(ctx, Event{Scope: j.key.Scope, Step: StepBegin, Status: InFlight})
	return fmt.Errorf("%w: %w", refused(last), err)
}

func claimError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrInvalidKey):
		return retry.Permanent(fmt.Errorf("idempotency: claim: %w", err))
	case ctx.Err() != nil:
		return fmt.Errorf("idempotency: claim: %w: %w", context.Cause(ctx), err)
	default:
		return fmt.Errorf("idempotency: claim: %w", err)
	}
}

// ask waits for the answer of Begin for a moment after the end of ctx. A claim that nobody knows of would keep the key
// until its lease ends, and with Park for as long as it is retained, though the work never began.
func (j *job) ask(ctx context.Context) (Claim, error) {
	if ctx.Done() == nil {
		return j.store.Begin(ctx, j.key, j.options)
	}
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		grace := time.AfterFunc(claimGrace, cancel)
		context.AfterFunc(patient, func() { grace.Stop() })
	})()
	return j.store.Begin(patient, j.key, j.options)
}

// complete keeps r. The effect is there: what cannot be stored becomes a tombstone, and a store that fails is asked
// again, but the claim is never given up.
func (j *job) complete(ctx context.Context, t Ticket, r Result, late bool) error {
	if r.Size() > j.maxBytes {
		r = Result{Kind: Tombstone}
	}
	err := settle(ctx, func(ctx context.Context) error {
		err := j.store.Complete(ctx, t, r, j.retain)
		if errors.Is(err, ErrFull) && r.Kind != Tombstone {
			r = Result{Kind: Tombstone}
			err = j.store.Complete(ctx, t, r, j.retain)
		}
		return err
	})
	j.tell(ctx, Event{
		Scope: j.key.Scope, Step: StepComplete, Attempt: t.Attempt, Kind: r.Kind, Late: late && err == nil, Err: err,
	})
	return err
}

// release gives the claim up. Where the store fails, the claim ends with its lease.
func (j *job) release(ctx context.Context, t Ticket) {
	err := settle(ctx, func(ctx context.Context) error { return j.store.Release(ctx, t) })
	j.tell(ctx, Event{Scope: j.key.Scope, Step: StepRelease, Attempt: t.Attempt, Err: err})
}

// settle keeps the books: beyond the end of ctx, but not for ever.
func settle(ctx context.Context, step func(context.Context) error) error {
	ctx = context.WithoutCancel(ctx)
	end := time.Now().Add(settleTimeout)
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		try, done := context.WithTimeout(ctx, min(settleTry, time.Until(end)))
		err := step(try)
		done()
		if err == nil || lost(err) || time.Until(end) <= pause {
			return err
		}
		sleep(ctx, pause)
	}
}

func lost(err error) bool { return errors.Is(err, ErrLost) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
