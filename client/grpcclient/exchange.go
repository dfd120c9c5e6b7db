package grpcclient

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// An exchange is what the attempts of one call share, unary or stream. It belongs to one goroutine at a time.
type exchange struct {
	*policy
	caller     context.Context
	ctx        context.Context // the caller's, with our deadline where that comes first
	cc         *grpc.ClientConn
	method     string
	tries      retry.Tries
	breaker    *breaker.Breaker
	idempotent bool
	deadline   time.Time // of the call; zero: none
	own        bool      // it is ours: nothing but our timer ends the call
	start      time.Time // of the current attempt
}

// begin fills c. In b it keeps the context that outlives the stack.
func (c *exchange) begin(ctx context.Context, b *call.Bounded, method string, cc *grpc.ClientConn, timeout time.Duration) {
	c.caller, c.ctx, c.cc, c.method, c.start = ctx, ctx, cc, method, time.Now()
	c.deadline, _ = ctx.Deadline()
	if timeout < NoTimeout { // for a stream, never
		ours := c.start.Add(timeout)
		if c.deadline.IsZero() || ours.Before(c.deadline) {
			c.deadline, c.own = ours, true
			b.Context, b.Until = ctx, ours
			c.ctx = b
		}
	}
	shared := c.target(cc)
	retries := c.Retry
	if retries.Budget == nil {
		retries.Budget = shared.budget
	}
	c.tries = retries.Start(c.ctx) //nolint:contextcheck // it is the caller's, with a nearer deadline
	c.idempotent = c.tries.Idempotent() || c.Idempotent(method)
	key := method
	if c.BreakerKey != nil {
		key = c.BreakerKey(method)
	}
	c.breaker = shared.breakers.Get(key)
}

// limit is how long the next attempt may take, and whether a timer must see to that.
func (c *exchange) limit() (limit time.Duration, timer bool) {
	limit = c.AttemptTimeout
	if c.deadline.IsZero() {
		return limit, limit < NoTimeout
	}
	left := c.deadline.Sub(c.start)
	limit = call.Limit(limit, left, c.idempotent && !c.tries.Last())
	return limit, c.own || limit < left
}

// outgoing adds what the server is told about the attempt. The caller's own metadata is copied, not changed.
func (c *exchange) outgoing(ctx context.Context) context.Context {
	n := c.tries.Attempt()
	if c.Headers == HeadersNone || c.Headers == HeadersTandem && n == 1 {
		return ctx
	}
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		md = metadata.MD{}
	}
	if c.Headers == HeadersTandem {
		md.Set(call.MetadataAttempt, strconv.Itoa(n))
		return metadata.NewOutgoingContext(ctx, md)
	}
	if deadline, ok := ctx.Deadline(); ok {
		md.Set(call.MetadataMeshTime, call.FormatTimeout(time.Until(deadline)))
	}
	if n > 1 {
		md.Set(call.MetadataMeshTry, strconv.Itoa(n))
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// again reports whether another attempt may follow a failed one, and logs what was decided.
func (c *exchange) again(v verdict) bool {
	v.Open = c.breaker.RetryAfter()
	again := c.tries.Again(v.Outcome)
	if c.Log == nil || !again && c.tries.Reason() == retry.Stopped && c.tries.Attempt() == 1 {
		return again // or there was never a question of another attempt
	}
	level, text := slog.LevelInfo, "grpc call: another attempt"
	attrs := []slog.Attr{
		slog.String("method", c.method), slog.Int("attempt", c.tries.Attempt()),
		slog.String("code", statusOf(v.Err).Code().String()),
	}
	if !again {
		level, text = slog.LevelWarn, "grpc call: giving up"
		attrs = append(attrs, slog.String("reason", c.tries.Reason().String()))
	}
	c.Log.LogAttrs(c.ctx, level, text, attrs...)
	return again
}

// wait waits for the next attempt and begins it. An error is the end of the context.
func (c *exchange) wait() error {
	err := c.tries.Wait()
	c.start = time.Now()
	return err
}

// fail is the error of the whole call, after v. waited is the end of the context where that ended a wait.
func (c *exchange) fail(v verdict, waited error) error {
	e := &callError{status: statusOf(v.Err), timeout: v.timedOut}
	if waited != nil {
		e.status = status.FromContextError(call.Ended(c.ctx, time.Now()))
	}
	e.retries, _ = errors.AsType[*retry.Error](c.tries.Wrap(v.Err))
	return e
}

// over is the error of a call whose context had ended before it began; nil if it had not.
func (c *exchange) over() error {
	err := c.ended()
	if err == nil {
		return nil
	}
	e := &retry.Error{Reason: retry.Cancelled, Cause: err}
	if cause := context.Cause(c.caller); !errors.Is(cause, err) {
		e.Err = cause
	}
	return &callError{retries: e, status: status.FromContextError(err)}
}

// refused is the verdict on an attempt that the breaker did not let through.
func (c *exchange) refused(err error) verdict {
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		err = refusal{open}
	}
	c.tell(err)
	return verdict{Outcome: retry.Judge(err), breaker: breaker.Ignored}
}

// tell calls the hook.
func (c *exchange) tell(err error) {
	if c.OnAttempt == nil {
		return
	}
	defer func() { _ = recover() }() // a hook watches the call; it does not decide it
	c.OnAttempt(c.ctx, Attempt{Number: c.tries.Attempt(), Method: c.method, Err: err, Duration: time.Since(c.start)})
}

// wire is what grpc is given of ours with each attempt, and what it leaves there.
type wire struct {
	bounded call.Bounded
	trailer metadata.MD
	over    atomic.Bool
	room    [6]grpc.CallOption
}

// untouched is what trailer holds until grpc sets it, which it does at the end of every attempt that had a stream on a
// connection, and of no other. It is never changed.
var untouched = metadata.MD{"tandem-untouched": nil}

// options adds to the caller's options what brings the trailer. Where there may be no connection it also watches for
// the proof that an attempt did not begin: grpc has had our options, since it calls finish, and yet had no stream whose
// trailer it could set. A trailer left untouched is no proof alone: an interceptor below may have dropped the options.
func (w *wire) options(opts []grpc.CallOption, cc *grpc.ClientConn) []grpc.CallOption {
	w.trailer = untouched
	opts = append(append(w.room[:0], opts...), grpc.Trailer(&w.trailer))
	if cc != nil && cc.GetState() != connectivity.Ready {
		opts = append(opts, grpc.OnFinish(w.finish))
	}
	return opts
}

func (w *wire) finish(error) { w.over.Store(true) }

// sent is the trailer of the server, if there is one.
func (w *wire) sent() metadata.MD {
	if w.bare() {
		return nil
	}
	return w.trailer
}

// unbegun reports whether the attempt provably did not begin.
func (w *wire) unbegun() bool { return w.over.Load() && w.bare() }

func (w *wire) bare() bool {
	_, ok := w.trailer["tandem-untouched"]
	return ok
}

// timedOut reports whether code can be what the end of an attempt's own time comes to.
func timedOut(err error) bool {
	code := statusOf(err).Code()
	return code == codes.DeadlineExceeded || code == codes.Canceled
}
