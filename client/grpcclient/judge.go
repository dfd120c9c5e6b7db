package grpcclient

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// A failure is what is known of an attempt that failed.
type failure struct {
	err      error
	trailer  metadata.MD // what the server sent with its status
	unbegun  bool        // provably: no stream was opened on any connection
	timedOut bool        // our own attempt timeout ended it
	took     time.Duration
}

// A verdict is what follows from a failure.
type verdict struct {
	retry.Outcome
	breaker  breaker.Outcome
	timedOut bool
}

// judge decides whether a failed attempt may be followed by another, and what it says about the server.
func (c *exchange) judge(f failure) verdict {
	st, ended := statusOf(f.err), c.ended()
	switch { // grpc tells a cancelled context as such, whatever cancelled it
	case f.timedOut && st.Code() != codes.DeadlineExceeded:
		st = status.New(codes.DeadlineExceeded, "attempt timeout exceeded")
		f.err = st.Err()
	case errors.Is(ended, context.DeadlineExceeded) && st.Code() == codes.Canceled:
		st = status.FromContextError(ended)
		f.err = st.Err()
	}
	v := verdict{Outcome: retry.Judge(f.err), timedOut: f.timedOut} // what interceptors below may have marked
	elsewhere := v.Refused                                          // by another breaker, below: not by this server
	v.Refused = v.Refused || f.unbegun

	if ended != nil {
		v.Stop, v.breaker = true, c.blame(ended, f.took)
		return v
	}
	if refuses(f.trailer) {
		// The tier that answers is well; what it depends on is not, and it has tried.
		v.Stop, v.breaker = true, breaker.Ignored
		call.InboundFrom(c.ctx).GiveUp()
		return v
	}
	hint, hinted, stop := wish(f.trailer, st)
	v.Hint, v.Hinted = max(v.Hint, hint), v.Hinted || hinted
	v.Stop = v.Stop || stop || !c.worth(st.Code(), v.Hinted, f.timedOut) || !c.idempotent && !v.Refused
	switch {
	case elsewhere:
		v.breaker = breaker.Ignored
	case f.timedOut:
		v.breaker = c.blame(context.DeadlineExceeded, f.took)
	default:
		v.breaker = outcomeOf(st.Code())
	}
	return v
}

// ended is how the caller has ended the call; nil if it goes on.
func (c *exchange) ended() error {
	if c.caller.Err() == nil {
		return nil
	}
	return call.Ended(c.caller, time.Now())
}

// worth says which codes another attempt can mend. It does not say that one is safe.
func (c *exchange) worth(code codes.Code, hinted, timedOut bool) bool {
	switch code {
	case codes.Unavailable:
		return true
	case codes.ResourceExhausted, codes.Aborted:
		// Also a message that is too large, a quota gone for the day, a transaction to begin anew: another attempt
		// helps only where the server says so.
		return hinted
	case codes.DeadlineExceeded:
		return timedOut
	default:
		return false
	}
}

// outcomeOf is what a server's status says about the server: an answer about the request is a success.
func outcomeOf(code codes.Code) breaker.Outcome {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.DataLoss:
		return breaker.Failure
	case codes.Canceled:
		return breaker.Ignored
	default:
		return breaker.Success
	}
}

// blame judges an attempt that ran out of time or was cancelled. A caller that went away says nothing about the
// server. A deadline does, if the server had some time.
func (c *exchange) blame(ended error, took time.Duration) breaker.Outcome {
	if errors.Is(ended, context.DeadlineExceeded) && took >= call.Telling(c.AttemptTimeout) {
		return breaker.Failure
	}
	return breaker.Ignored
}

// refuses reports whether the server marked its failure as one that its own retries could not mend.
func refuses(trailer metadata.MD) bool {
	for _, v := range trailer[call.MetadataRetry] {
		if v == call.RetryNo {
			return true
		}
	}
	return false
}

// wish reads what the server asks for: a RetryInfo detail and grpc-retry-pushback-ms. Of two wishes the longer one
// counts. A pushback that is negative, malformed or repeated means stop (gRFC A6).
func wish(trailer metadata.MD, st *status.Status) (hint time.Duration, hinted, stop bool) {
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.RetryInfo)
		if !ok {
			continue
		}
		if d := info.GetRetryDelay(); d.CheckValid() == nil && d.AsDuration() >= 0 {
			hint, hinted = max(hint, d.AsDuration()), true
		}
	}
	switch v := trailer[call.MetadataPushback]; len(v) {
	case 0:
		return hint, hinted, false
	case 1:
		ms, err := strconv.ParseInt(v[0], 10, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || ms < 0 {
			return 0, false, true
		}
		ms = min(ms, math.MaxInt64/int64(time.Millisecond))
		return max(hint, time.Duration(ms)*time.Millisecond), true, false
	default:
		return 0, false, true
	}
}
