package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/internal/keyed"
	"github.com/tandemgo/tandem/retry"
)

// A Transport is an http.RoundTripper. Any number of goroutines may use it at once.
type Transport struct {
	base        http.RoundTripper
	timeout     time.Duration
	attempt     time.Duration
	idle        time.Duration
	policy      retry.Policy
	serverError bool
	breakers    *breaker.Group
	keyOf       func(*http.Request) string
	headers     Headers
	onAttempt   func(context.Context, Attempt)
	log         *slog.Logger
	targets     *keyed.Map[address, *target]
}

// An exchange is one call: what RoundTrip knows between its attempts. With its first attempt it is one allocation.
type exchange struct {
	t        *Transport
	r        *http.Request // the caller's; never changed
	parent   call.Bounded  // the caller's context with the deadline of the call, where that is ours
	deadline time.Time     // of the call: the caller's or ours, whichever comes first; zero: none
	target   *target
	breaker  *breaker.Breaker
	tries    retry.Tries
	safe     bool          // it may happen twice
	rewinds  bool          // its body can be sent again
	body     io.ReadCloser // of the next attempt; nil once it was given away
	attempt  *attempt      // the current one; nil where the breaker refused it
	verdict  verdict       // about the current one
	first    attempt
}

// RoundTrip implements http.RoundTripper. Its error is a *retry.Error where more than one attempt was made, or where it
// is not plain why there was no other; the error of the last attempt is always reachable through it.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil || r.Header == nil {
		return t.base.RoundTrip(r) // which says what is wrong, and closes the body
	}
	c := &exchange{t: t, r: r, body: r.Body}
	var res *http.Response
	returned := false
	defer func() {
		if !returned {
			c.abandon(res)
		}
	}()
	now := time.Now()
	c.begin(now)
	for {
		var err error
		res, err = c.try(now)
		t.observe(c, res, err)
		if c.verdict.err == nil {
			res, returned = c.hand(res), true
			return res, nil
		}
		again, why := c.again(err)
		if again {
			if res != nil {
				c.discard(res)
				res = nil
			}
			if end := c.tries.Wait(); end != nil {
				again, why = false, c.tries.Wrap(end)
			}
		}
		if !again {
			res, err = c.giveUp(res, why)
			returned = true
			return res, err
		}
		now = time.Now()
	}
}

// begin finds out what holds for the whole call.
func (c *exchange) begin(now time.Time) {
	t, ctx := c.t, c.r.Context()
	c.deadline, _ = ctx.Deadline()
	if t.timeout < NoTimeout {
		ours := now.Add(t.timeout)
		if c.deadline.IsZero() || ours.Before(c.deadline) {
			c.deadline = ours
			c.parent = call.Bounded{Context: ctx, Until: ours}
			ctx = &c.parent
		}
	}
	c.target = t.targetOf(c.r)
	c.breaker = t.breakers.Get(c.target.key)
	policy := t.policy
	if policy.Budget == nil {
		policy.Budget = c.target.budget
	}
	c.tries = policy.Start(ctx)
	c.safe = c.tries.Idempotent() || repeatable(c.r)
	c.rewinds = rewindable(c.r)
}

// try makes one attempt: breaker, attempt timeout, wire.
func (c *exchange) try(now time.Time) (*http.Response, error) {
	c.attempt = nil
	if err := c.over(now); err != nil {
		c.verdict = verdict{err: err}
		return nil, err
	}
	permit, err := c.breaker.Allow()
	if err != nil {
		c.verdict = refusal(err)
		return nil, err
	}
	a := c.prepare(now)
	c.attempt = a
	outcome := breaker.Ignored // what a panic leaves: it says nothing about the server
	defer func() { permit.Done(outcome) }()
	res, err := a.settle(c.t.base.RoundTrip(&a.request))
	c.verdict = c.judge(res, err)
	outcome = c.verdict.breaker
	if res != nil && res.Request == &a.request {
		res.Request = c.r // without our context, which ends before the caller is done with the response
	}
	return res, err
}

// over is the error of a call whose time is over before the attempt began.
func (c *exchange) over(now time.Time) error {
	if ended := c.ended(now); ended != nil {
		if cause := context.Cause(c.r.Context()); cause != nil {
			return cause
		}
		return ended
	}
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return &timeoutError{noCall, c.t.timeout}
	}
	return nil
}

// ended is how the caller has ended the call; nil if it goes on. A Timeout set on the http.Client itself comes through
// Request.Cancel.
func (c *exchange) ended(now time.Time) error {
	if err := call.Ended(c.r.Context(), now); err != nil {
		return err
	}
	//lint:ignore SA1019 http.Client uses it still
	cancelled := c.r.Cancel //nolint:staticcheck // as above
	select {
	case <-cancelled:
		return context.Canceled
	default:
		return nil
	}
}

// refusal is what becomes of an attempt that the breaker did not let through.
func refusal(err error) verdict {
	v := verdict{err: err, worth: true, unsent: true, free: true}
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		v.hint, v.hinted = open.RetryAfter, true
	}
	return v
}

const (
	noAttempt = "no response to the attempt"
	noCall    = "no response to the call"
)

// prepare makes the next attempt. While another one is allowed after it, it gets at most half of what remains.
func (c *exchange) prepare(now time.Time) *attempt {
	number := c.tries.Attempt()
	a := &c.first
	if number > 1 {
		a = new(attempt)
	}
	limit, what := c.t.attempt, noAttempt
	if !c.deadline.IsZero() {
		rest := c.deadline.Sub(now)
		limit = call.Limit(limit, rest, c.safe && c.rewinds && !c.tries.Last())
		if limit == rest {
			what = noCall
		}
	}
	a.begin(c, now, limit, what)
	a.request = *c.r.WithContext(a)
	a.send(c.body)
	c.body = nil // the base closes it, whatever comes
	a.tell(c.t.headers, number)
	return a
}

// judge completes what judge of outcome.go is to know.
func (c *exchange) judge(res *http.Response, err error) verdict {
	if res != nil && res.StatusCode < 400 {
		return verdict{}
	}
	now := time.Now()
	deadline, bounded := c.attempt.Deadline()
	v := judge(result{
		request:  c.r,
		response: res,
		err:      err,
		ended:    c.ended(now),
		late:     c.attempt.fired,
		spent:    bounded && deadline.Sub(now) < time.Millisecond,
		enough:   now.Sub(c.attempt.started) >= call.Telling(c.t.attempt),
		source:   c.attempt.upload.err(),
		now:      now,
	}, c.t.serverError)
	if v.told {
		call.InboundFrom(c.r.Context()).GiveUp() // our own caller need not ask for it again either
	}
	return v
}

// again asks everything that could forbid another attempt, while the response is still there to be handed out. Where
// there is to be none, it returns the error of the attempt as the caller is to see it; nil with a response.
func (c *exchange) again(err error) (bool, error) {
	v := &c.verdict
	allowed := v.worth && !v.told && (c.safe || v.unsent) && (c.rewinds || c.body != nil)
	o := retry.Outcome{
		Err: v.err, Hint: v.hint, Hinted: v.hinted, Stop: !allowed, Refused: v.unsent, Free: v.free,
		Open: c.breaker.RetryAfter(),
	}
	if !c.tries.Again(o) {
		return false, c.explain(err)
	}
	if rewind := c.rewind(); rewind != nil {
		if err != nil {
			err = fmt.Errorf("%w; its body cannot be sent again: %w", err, rewind)
		}
		return false, c.tries.Wrap(err)
	}
	c.t.logRetry(c)
	return true, nil
}

// rewind gets the body of the next attempt, where the one before was given away.
func (c *exchange) rewind() (err error) {
	if c.body == nil && c.r.Body != nil {
		c.body = http.NoBody
		if c.r.Body != http.NoBody {
			c.body, err = c.r.GetBody()
		}
	}
	return err
}

// explain says how many attempts were made and why there is no other, unless that is plain.
func (c *exchange) explain(err error) error {
	if c.tries.Attempt() == 1 {
		switch c.tries.Reason() {
		case retry.Stopped, retry.Attempts, retry.Cancelled, retry.Refused:
			return err
		}
	}
	return c.tries.Wrap(err)
}

// hand gives the response to the caller, and the attempt with it.
func (c *exchange) hand(res *http.Response) *http.Response {
	c.attempt.hold(res)
	return res
}

// discard drains and closes res, for a tenth of what remains of the call at most: the next attempt needs it more than the
// connection does.
func (c *exchange) discard(res *http.Response) {
	most := drainTime
	if !c.deadline.IsZero() {
		most = min(most, time.Until(c.deadline)/10)
	}
	c.attempt.discard(res, most)
}

// giveUp ends the call without success: with the response where there is one, else with the error.
func (c *exchange) giveUp(res *http.Response, err error) (*http.Response, error) {
	if c.body != nil {
		c.body.Close()
	}
	c.t.logGiveUp(c)
	if res != nil {
		return c.hand(res), nil
	}
	return nil, err
}

// abandon releases everything when the caller's own code, such as Retryable or a hook that ends its goroutine, does not
// let the call come to its end.
func (c *exchange) abandon(res *http.Response) {
	if res != nil && res.Body != nil {
		res.Body.Close()
	}
	if c.attempt != nil {
		c.attempt.end()
	}
	if c.body != nil {
		c.body.Close()
	}
}

// CloseIdleConnections closes the idle connections of the base transport, if it can. No failure does this by itself:
// it would empty the pool of every host.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
