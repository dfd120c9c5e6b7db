package retry

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// Tries is the loop of one call, for transports whose answer is more than an error. Most callers use Do.
//
//	t := p.Start(ctx)
//	for {
//		answer, err := attempt(t.Context(), t.Attempt())
//		if err == nil || !t.Again(retry.Outcome{Err: err}) {
//			return answer, t.Wrap(err)
//		}
//		discard(answer)
//		if err := t.Wait(); err != nil {
//			return nil, t.Wrap(err)
//		}
//	}
//
// A Tries belongs to one goroutine. Nothing is allocated before the first failure, but for what WithPolicy, Idempotent
// or an outer attempt left in the context.
type Tries struct {
	ctx        context.Context // of the call, without marks
	policy     Policy
	start      time.Time
	attempt    int
	idempotent bool

	intervals Intervals // made after the first failure
	reason    Reason
	last      Outcome
	decided   time.Time // when Again allowed the next attempt
	delay     time.Duration
	hinted    bool  // somebody asked for the delay
	cause     error // the end of ctx, where that ended the call
	waited    bool  // ctx ended in Wait: the last outcome is all that is left
}

// An Outcome is what one failed attempt came to.
type Outcome struct {
	Err     error         // why it failed; never nil
	Hint    time.Duration // the server's wish, with Hinted: a floor of the wait. Zero asks for nothing: the wait is ours
	Hinted  bool
	Stop    bool // not worth another attempt, or not safe to repeat
	Refused bool // provably never reached the server (an open breaker of our own, a failed dial): no chain stop
	Free    bool // costs no budget: the attempt was no load on the server
	// Open is how long the breaker would refuse the next attempt, which this very failure may have brought about. The
	// next attempt waits for it as for a refusal, or there is none and the call ends with what the server said. Zero: it
	// would not.
	Open time.Duration
}

// leastUseful is the shortest time in which an attempt is worth starting.
const leastUseful = time.Millisecond

// Start begins a call: it counts it as a first attempt with the budget and takes the marks of WithPolicy and
// Idempotent from ctx. Zero fields of p take the defaults of a call.
func (p Policy) Start(ctx context.Context) Tries {
	ctx, marks := call.TakeMarks(ctx)
	if over, ok := marks.Policy.(*Policy); ok {
		p = over.Or(p)
		if over.Validate() != nil {
			p.MaxAttempts = 1
		}
	}
	if call.Attempt(ctx) > 1 { // of a call around this one
		ctx = call.WithAttempt(ctx, 1)
	}
	t := Tries{ctx: ctx, policy: p.Or(defaults()), start: time.Now(), attempt: 1, idempotent: marks.Idempotent}
	t.policy.Budget.deposit(t.start)
	return t
}

// Context is the context of the current attempt: the caller's without the marks that Start took, and with the number
// of the attempt from the second on.
func (t *Tries) Context() context.Context {
	if t.attempt == 1 {
		return t.ctx
	}
	return call.WithAttempt(t.ctx, t.attempt)
}

// Attempt is the number of the current attempt, from 1.
func (t *Tries) Attempt() int { return t.attempt }

// Idempotent reports whether the caller marked the call with Idempotent.
func (t *Tries) Idempotent() bool { return t.idempotent }

// Last reports whether the current attempt is known to be the last: all are made, or the inbound call is itself a
// retry. An attempt that is not the last should leave time for another one.
func (t *Tries) Last() bool {
	return t.attempt >= t.policy.MaxAttempts || call.InboundFrom(t.ctx).Retried()
}

// Again reports whether another attempt is allowed, and reserves it. These have been asked, in this order: the end of
// the context, Stop and Retryable, attempts, chain stop, hint, deadline and budget. After false, Reason says which of
// them refused; nothing has been waited for, and the answer of the attempt is still the caller's to return.
func (t *Tries) Again(o Outcome) bool {
	t.last = o
	why, ok := t.next(o)
	if !ok {
		t.giveUp(why)
	}
	return ok
}

// next finds the delay before the next attempt, or the reason why there is none.
func (t *Tries) next(o Outcome) (Reason, bool) {
	now := time.Now()
	if call.Ended(t.ctx, now) != nil {
		t.cause = endOf(t.ctx, now)
		return Cancelled, false
	}
	if o.Stop || !t.retryable(o.Err) {
		return Stopped, false
	}
	if t.attempt >= t.policy.MaxAttempts {
		return Attempts, false
	}
	if !o.Refused && call.InboundFrom(t.ctx).Retried() {
		return ChainStop, false
	}
	own := t.interval()
	if own < 0 {
		return Attempts, false
	}
	if why, ok := t.fit(o, own, now); !ok {
		return why, false
	}
	if !o.Free && !t.policy.Budget.withdraw(now) {
		return Exhausted, false
	}
	return 0, true
}

// retryable asks the policy, unless the error itself says when to come back.
func (t *Tries) retryable(err error) bool {
	if t.policy.Retryable == nil {
		return true
	}
	if h, ok := errors.AsType[hinter](err); ok {
		if _, hinted := h.Hint(); hinted {
			return true
		}
	}
	return t.policy.Retryable(err)
}

// fit sets the delay: the server's wish where there is one, our own else. A deadline bounds both; where there is none,
// MaxHint bounds the wish. An open breaker is waited for no longer than a wait of our own might be: it is there so that
// calls fail fast, and those that sleep until it half-opens would all wake at that instant.
func (t *Tries) fit(o Outcome, own time.Duration, now time.Time) (Reason, bool) {
	left := time.Duration(math.MaxInt64)
	deadline, bounded := t.ctx.Deadline()
	if bounded {
		left = deadline.Sub(now) - leastUseful
	}
	wish, open := time.Duration(0), o.Refused
	if o.Hinted {
		wish = o.Hint
	}
	if o.Open > 0 && o.Open >= wish {
		wish, open = o.Open, true
	}
	t.decided, t.hinted = now, wish > 0
	if !t.hinted {
		t.delay = own
		return Deadline, own <= left
	}
	most, why := left, Deadline
	switch {
	case open:
		most, why = min(left, t.policy.MaxDelay), Refused
	case !bounded:
		most, why = t.policy.MaxHint, Hint
	}
	if wish > most {
		return why, false
	}
	jitter := time.Duration(rand.Int64N(int64(wish/10) + 1))
	t.delay = wish + min(jitter, math.MaxInt64-wish)
	t.delay = min(t.delay, left) // a wish that fits is not refused for its jitter
	return why, true
}

func (t *Tries) interval() time.Duration {
	if t.intervals == nil {
		if t.policy.Backoff != nil {
			t.intervals = t.policy.Backoff()
		}
		if t.intervals == nil {
			t.intervals = fullJitter(t.policy.BaseDelay, t.policy.MaxDelay)
		}
	}
	return t.intervals.NextBackOff()
}

// giveUp ends the call for the reason why: it tells the caller of this process, if it waits for an answer, and the hook.
func (t *Tries) giveUp(why Reason) {
	t.reason = why
	if t.endsRetries() {
		call.InboundFrom(t.ctx).GiveUp()
	}
	if hook := t.policy.OnGiveUp; hook != nil && (why != Stopped || t.attempt > 1) {
		contain(func() { hook(t.ctx, t.failure(t.last.Err)) })
	}
}

// endsRetries reports whether this tier had retries of its own and they have ended, so that its caller had better not
// start them all over again.
func (t *Tries) endsRetries() bool {
	if t.policy.MaxAttempts <= 1 {
		return false
	}
	switch t.reason {
	case Attempts, Exhausted, Deadline, Hint, Refused:
		return true
	case Cancelled: // a deadline that passed within the attempt; a cancelled caller no longer listens
		return errors.Is(call.Ended(t.ctx, time.Now()), context.DeadlineExceeded)
	default:
		return false
	}
}

// Wait calls OnRetry and waits for the next attempt; what the caller has done since Again is part of the wait. If the
// context ends first, or its deadline has passed by then, Wait returns that end, and Wrap makes of it an error that knows
// the last outcome as well.
func (t *Tries) Wait() error {
	if hook := t.policy.OnRetry; hook != nil {
		contain(func() {
			hook(t.ctx, Event{Attempt: t.attempt, Delay: t.delay, Hinted: t.hinted, Err: t.last.Err})
		})
	}
	timer := time.NewTimer(t.delay - time.Since(t.decided))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
	if now := time.Now(); call.Ended(t.ctx, now) != nil {
		t.cause, t.waited = endOf(t.ctx, now), true
		t.giveUp(Cancelled)
		return t.cause
	}
	t.attempt++
	return nil
}

// contain runs a hook: it watches the call and does not decide it.
func contain(hook func()) {
	defer func() { _ = recover() }()
	hook()
}

// Reason says why Again or Wait refused.
func (t *Tries) Reason() Reason { return t.reason }

// Wrap returns err as an *Error that knows attempts, elapsed time and reason; nil stays nil. Once Wait has failed,
// the error is that of the last attempt, with the end of the context as its Cause.
func (t *Tries) Wrap(err error) error {
	if err == nil {
		return nil
	}
	if t.waited {
		err = t.last.Err
	}
	return t.failure(err)
}

func (t *Tries) failure(err error) *Error {
	return &Error{Attempts: t.attempt, Elapsed: time.Since(t.start), Reason: t.reason, Err: err, Cause: t.cause}
}
