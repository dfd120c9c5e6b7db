package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/tandemgo/tandem/retry"
)

func (r *run) startWorker() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.workers++
	go r.workLoop()
}

// workLoop handles one ready message after another until the run stops.
func (r *run) workLoop() {
	w := &worker{}
	ended := false
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		w.end()
		if !ended { // the handler, or a hook, called runtime.Goexit, which takes its goroutine with it
			go r.workLoop()
			return
		}
		r.workers--
		r.quiet.Broadcast()
	}()
	for {
		r.mu.Lock()
		f := r.next()
		if f == nil {
			r.mu.Unlock()
			ended = true
			return
		}
		ctx := r.begin(w, f)
		r.mu.Unlock()
		w.task = task{flight: f, ctx: ctx}
		if f.dead != nil {
			w.task.step = told // what is left is to bury it
		}
		r.process(&w.task)
		w.task = task{}
	}
}

// next waits for a message that is ready. It returns nil when the run has stopped.
func (r *run) next() *flight {
	for {
		for r.readyAt < len(r.ready) && (r.draining || !r.brake.holds()) {
			f := r.ready[r.readyAt]
			r.ready[r.readyAt] = nil
			r.readyAt++
			if r.readyAt == len(r.ready) {
				r.ready, r.readyAt = r.ready[:0], 0
			}
			if f.lost { // while it waited
				r.leaveLane(f)
				r.drop(f)
				r.quiet.Broadcast()
				continue
			}
			if r.draining && f.dead == nil {
				continue // it is about to be handed back
			}
			r.brake.probe()
			r.keeper.due(r.brake.next) // of the next one, whatever becomes of this one
			if r.readyAt < len(r.ready) && r.idle > 0 {
				r.work.Signal()
			}
			return f
		}
		if r.stopped {
			return nil
		}
		r.idle++
		r.work.Wait()
		r.idle--
	}
}

// begin marks f as running in w and returns the context of the attempt.
func (r *run) begin(w *worker, f *flight) context.Context {
	if w.ctx == nil || w.uses >= contextUses {
		w.renew(r.base)
	}
	w.uses++
	f.state, f.worker = running, w
	r.running++
	if d := r.c.config.HandleTimeout; d != NoTimeout && f.dead == nil {
		f.timeOut = time.Now().Add(d)
		r.keeper.due(f.timeOut)
	}
	return w.ctx
}

// renew ends the context of a worker and gives it another.
func (w *worker) renew(base context.Context) {
	w.end()
	w.ctx, w.cancel = context.WithCancelCause(base)
	w.uses = 0
}

func (w *worker) end() {
	if w.cancel != nil {
		w.cancel(nil)
	}
}

// interrupt ends the context of the handler that runs f. The worker takes a new one for its next message.
func (f *flight) interrupt(cause error) {
	if w := f.worker; w != nil && w.cancel != nil {
		w.cancel(cause)
		w.ctx = nil
	}
}

// A decision is what becomes of a message after an attempt.
type decision struct {
	action  Action
	delay   time.Duration // of Retry
	cause   error         // of Retry and Refuse
	counted bool          // a failure of the message
	waited  bool          // a use of RetryAfter
	held    bool          // until the end of Run; then given back at once
	burial  *burial       // a dead letter instead
}

// A task is one message in the hands of a worker.
type task struct {
	flight   *flight
	ctx      context.Context
	step     step // the last one that has begun
	started  time.Time
	err      error
	decision decision
}

type step int

const (
	fresh step = iota
	handled
	decided
	told
	carriedOut
	finished
)

// process brings a message from one attempt to its verdict. Handler and hooks are the user's code, which may call
// runtime.Goexit: then only deferred calls run in this goroutine, and the steps that are left are taken in one.
func (r *run) process(t *task) {
	defer func() {
		if t.step < finished {
			r.process(t)
		}
	}()
	for t.step < finished {
		t.step++
		switch t.step {
		case handled:
			r.attempt(t)
		case decided:
			r.decide(t)
		case told:
			r.tellAttempt(t)
		case carriedOut:
			r.carryOut(t)
		case finished:
			r.finish(t.flight, t.decision)
		}
	}
}

// holdFor is longer than any Run.
const holdFor = 10 * 365 * 24 * time.Hour

// A panicError is what a handler panicked with.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("messaging: the handler panicked: %v", e.value)
}

func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

var errGoexit = errors.New("messaging: the handler called runtime.Goexit")

// attempt calls the handler. A panic becomes its error.
func (r *run) attempt(t *task) {
	if r.c.config.OnAttempt != nil {
		t.started = time.Now()
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if v == nil {
			v = errGoexit
		}
		t.err = &panicError{value: v, stack: debug.Stack()}
	}()
	t.err = r.c.handler(t.ctx, t.flight.message)
	returned = true
}

var errHandleTimeout = fmt.Errorf("messaging: HandleTimeout is over: %w", context.DeadlineExceeded)

// decide judges the outcome of an attempt. It calls the user's code, so it holds no lock.
func (r *run) decide(t *task) {
	if t.err == nil {
		t.decision = decision{action: Done}
		return
	}
	cause := context.Cause(t.ctx)
	if errors.Is(cause, errHandleTimeout) && !errors.Is(t.err, errHandleTimeout) {
		t.err = fmt.Errorf("%w: %w", errHandleTimeout, t.err)
	}
	switch {
	case errors.Is(cause, ErrDraining):
		t.decision = decision{action: Release} // our end, not the message's fault
	case r.isLost(t.flight):
		t.decision = decision{action: Release} // its next owner decides; finish says nothing to the transport
	default:
		// What holds if the policy's own code does not return.
		t.decision = decision{action: Retry, delay: r.c.config.Retry.MaxDelay, counted: true, cause: t.err}
		t.decision = r.decideFailure(t.ctx, t.flight, t.err)
	}
	if f := t.flight; f.last && t.decision.burial == nil && r.cannotStay(f) {
		t.decision = decision{burial: r.newBurial(f, deadLast, t.err, time.Now())}
	}
}

// cannotStay reports whether f would be given back if it is not settled: a drain waits for no retry.
func (r *run) cannotStay(f *flight) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining && !f.lost
}

// counted is the number of the current attempt, those that were no failures not counted.
func (f *flight) counted() int { return max(f.message.Attempt-f.waits, 1) }

// tellAttempt tells the user what an attempt came to.
func (r *run) tellAttempt(t *task) {
	c, d := &r.c.config, &t.decision
	if t.err != nil && c.Log != nil {
		r.logAttempt(t.ctx, t.flight, t.err, *d)
	}
	if c.OnAttempt == nil {
		return
	}
	e := HandleAttempt{
		Message: t.flight.message, Attempt: t.flight.counted(), Err: t.err, Duration: time.Since(t.started),
		Retry: d.delay, Again: d.action == Retry,
	}
	_, e.Panic = errors.AsType[*panicError](t.err)
	contain(c.Log, func() { c.OnAttempt(t.ctx, e) })
}

// carryOut publishes the dead letter, if that is what was decided.
func (r *run) carryOut(t *task) {
	f, counted := t.flight, t.decision.counted
	if b := t.decision.burial; b != nil {
		r.mu.Lock()
		f.dead, f.timeOut, f.timedOut = b, time.Time{}, false
		r.keeper.due(f.extendAt)
		r.mu.Unlock()
	}
	if f.dead == nil {
		return
	}
	r.bury(f, &t.decision)
	t.decision.counted = counted
}

func (r *run) isLost(f *flight) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.lost
}

func (r *run) logAttempt(ctx context.Context, f *flight, err error, d decision) {
	attrs := []slog.Attr{
		slog.String("topic", r.c.topic), slog.String("group", r.c.config.Group), slog.String("id", f.message.ID),
		slog.Int("attempt", f.message.Attempt), slog.Any("error", err),
	}
	if d.delay > 0 {
		attrs = append(attrs, slog.Duration("retry", d.delay))
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	r.c.config.Log.LogAttrs(ctx, slog.LevelWarn, "messaging: an attempt failed", attrs...)
}

// decideFailure says whether, and when, a failed message is tried again.
func (r *run) decideFailure(ctx context.Context, f *flight, err error) decision {
	p, attempt := &r.c.config.Retry, f.counted()
	now := time.Now()
	if _, held := errors.AsType[*holdError](err); held {
		return decision{action: Retry, delay: holdFor, waited: true, held: true}
	}
	if isPermanent(err) && !errors.Is(err, ErrClosed) { // that a connection of ours is closed is no word about the message
		return decision{counted: true, burial: r.newBurial(f, deadRejected, err, now)}
	}
	if hint, ok := hintOf(err); ok {
		if hint <= 0 {
			hint = r.delay(1)
		}
		if r.tooOld(f, now.Add(hint)) {
			return decision{counted: true, burial: r.newBurial(f, deadAge, err, now)}
		}
		hint = spread(hint)
		r.onRetry(ctx, retry.Event{Attempt: attempt, Delay: hint, Hinted: true, Err: err})
		return decision{action: Retry, delay: hint, waited: true, cause: err}
	}
	if p.Retryable != nil && !p.Retryable(err) {
		return decision{counted: true, burial: r.newBurial(f, deadRejected, err, now)}
	}
	delay := time.Duration(-1)
	if attempt < p.MaxAttempts {
		delay = r.delay(attempt)
	}
	if delay >= 0 && r.braked() { // the next probe should be another message, not this one's last attempts
		delay = max(delay, p.MaxDelay/2+rand.N(p.MaxDelay/2+1))
	}
	if delay < 0 {
		return decision{counted: true, burial: r.newBurial(f, deadAttempts, err, now)}
	}
	r.onRetry(ctx, retry.Event{Attempt: attempt, Delay: delay, Err: err})
	return decision{action: Retry, delay: delay, counted: true, cause: err}
}

func (r *run) onRetry(ctx context.Context, e retry.Event) {
	if hook := r.c.config.Retry.OnRetry; hook != nil {
		contain(r.c.config.Log, func() { hook(ctx, e) })
	}
}

// leastDelay keeps a lucky draw from being no delay at all.
const leastDelay = time.Millisecond

// delay draws the wait after failure number n. Negative: the policy's own generator has ended.
func (r *run) delay(n int) time.Duration {
	p := &r.c.config.Retry
	if p.Backoff != nil {
		intervals, d := p.Backoff(), time.Duration(0)
		for range n {
			if d = intervals.NextBackOff(); d < 0 {
				return d
			}
		}
		return max(d, leastDelay)
	}
	ceiling := p.MaxDelay
	if n <= 32 && p.BaseDelay <= p.MaxDelay>>(n-1) {
		ceiling = p.BaseDelay << (n - 1)
	}
	return max(rand.N(ceiling+1), leastDelay)
}

// tooOld reports whether a message that waits until then has waited for longer than it may. One that was old when it came,
// because its consumers were away or because it was sent back from the dead letters, has a little time all the same.
func (r *run) tooOld(f *flight, then time.Time) bool {
	age := r.c.config.MaxAge
	if age == NoTimeout || then.Sub(f.published()) <= age {
		return false
	}
	since := f.first
	if since.IsZero() {
		since = f.arrived
	}
	return then.Sub(since) > age/24
}

// spread adds up to a tenth to a wait that was asked for: those who wait for one breaker would all come back at once.
func spread(hint time.Duration) time.Duration {
	hint = max(hint, leastDelay)
	return hint + min(rand.N(hint/10+1), NoTimeout-hint)
}

// published is since when the age of a message counts.
func (f *flight) published() time.Time {
	if f.message.Time.IsZero() {
		return f.arrived
	}
	return f.message.Time
}

// finish carries a decision out: the verdict goes to the settler, or the message to sleep.
func (r *run) finish(f *flight, d decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	if r.draining {
		r.quiet.Broadcast()
	}
	if f.abandoned {
		r.stats.Late++
		return
	}
	f.worker, f.timeOut = nil, time.Time{}
	r.count(f, d)
	if f.lost {
		r.stats.Late++
		r.late(f, d.action)
		r.leaveLane(f)
		r.drop(f)
		return
	}
	if d.action == Retry {
		r.again(f, d)
		return
	}
	r.forget(f)
	r.leaveLane(f)
	r.toSettle(f, Settlement{Action: d.action, Cause: d.cause})
}

func (r *run) count(f *flight, d decision) {
	switch {
	case d.counted:
		r.stats.Failed++
		rejected := f.dead != nil && f.dead.reason == deadRejected // about this message, and no other
		if !rejected && r.brake.failed(f.counted(), time.Now()) {
			r.tell(func(ctx context.Context) { r.report(ctx, Event{Kind: Slowed, Err: d.cause}) })
			if r.stopAsking != nil {
				r.braking = true
				r.stopAsking(errBraked)
				r.room.Signal()
			}
		}
		r.keeper.due(r.brake.next)
	case d.action == Done && f.dead == nil:
		r.stats.Handled++
		if r.brake.succeeded() {
			r.work.Broadcast()
			r.room.Signal()
			r.tell(func(ctx context.Context) { r.report(ctx, Event{Kind: Resumed}) })
		}
	}
	if (d.counted || d.waited) && f.first.IsZero() {
		f.first = time.Now()
	}
}

// again makes f come again after the delay: by sleeping here, its lease kept alive, or through the transport.
//
// What sleeps here keeps its lane, is counted exactly and, after RetryAfter, raises no count of the transport's: an hour
// of waiting for an open breaker must not look like a message that ends processes. A counted retry goes through the
// transport where that holds the delay: it survives this process, and any member may take it.
func (r *run) again(f *flight, d decision) {
	features := &r.c.features
	here := d.waited || f.dead != nil || d.delay > features.Delay
	here = here && r.parked < maxParked && r.parkedBytes+f.size <= r.c.config.BufferBytes/2
	fits := f.until.IsZero() || !f.extendAt.IsZero() || time.Now().Add(d.delay).Before(f.until)
	if (here || d.held || r.mustStay(f)) && fits && !r.draining {
		r.sleep(f, d)
		return
	}
	if d.waited {
		f.waits++
	}
	r.remember(f)
	r.leaveLane(f)
	r.toSettle(f, r.backToTransport(f, d))
}

// mustStay reports whether giving f back would lose it, or its place. So much may wait here that nothing else is fetched.
func (r *run) mustStay(f *flight) bool {
	_, ordered := r.laneKey(f.message) // the later ones of its lane, which are in hand, would overtake it
	reader := r.c.config.Group == ""
	return ordered || reader || f.last || r.c.features.Attempts == AttemptsNone
}

// backToTransport is the verdict that has a message delivered again. The delay is a wish where it is longer than the
// transport can hold.
func (r *run) backToTransport(f *flight, d decision) Settlement {
	s := Settlement{Action: Retry, Delay: d.delay, Cause: d.cause}
	if most := r.c.features.Delay; most > 0 {
		s.Delay = min(s.Delay, most)
	}
	if d.held {
		s.Delay = 0
	}
	if d.waited || f.dead != nil {
		s.Action, s.Cause = Release, nil
	}
	return s
}

// sleep parks f until its delay is over. Its lease is kept alive, and its lane waits.
func (r *run) sleep(f *flight, d decision) {
	f.state, f.wakeAt = sleeping, time.Now().Add(d.delay)
	f.timedOut, f.asleep = false, d
	if f.dead == nil && !d.waited {
		m := *f.message // the handler may have kept the other one
		m.Attempt++
		f.message = &m
	}
	r.setParked(f, true)
	r.parkLane(f.lane)
	r.keeper.due(f.wakeAt)
	r.keeper.due(f.extendAt)
	r.room.Signal()
}

// wake makes a sleeping flight ready.
func (r *run) wake(f *flight) {
	f.wakeAt = time.Time{}
	r.setParked(f, false)
	r.wakeLane(f.lane)
	r.makeReady(f)
	if r.idle > 0 {
		r.work.Signal()
	}
}
