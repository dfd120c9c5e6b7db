package retry

import (
	"context"
	"time"
)

// Tries is the loop of one call, for transports whose answer is more than an error. Most callers use Do.
//
//	t := p.Start(ctx)
//	for {
//		answer, err := attempt(t.Context(ctx), t.Attempt())
//		if err == nil || !t.Again(retry.Outcome{Err: err}) {
//			return answer, t.Wrap(err)
//		}
//		discard(answer)
//		if err := t.Wait(); err != nil {
//			return nil, t.Wrap(err)
//		}
//	}
//
// A Tries belongs to one goroutine. Nothing is allocated before the first failure.
type Tries struct {
	ctx     context.Context
	policy  Policy
	start   time.Time
	attempt int
	reason  Reason
}

// An Outcome is what one failed attempt came to.
type Outcome struct {
	Err     error         // why it failed; never nil
	Hint    time.Duration // the server's wish, with Hinted: a floor of the wait
	Hinted  bool
	Stop    bool // not worth another attempt, or not safe to repeat
	Refused bool // provably never reached the server (an open breaker of our own, a failed dial): no chain stop
	Free    bool // costs no budget: the attempt was no load on the server
}

// Start begins a call: it counts it as a first attempt with the budget and takes the override of WithPolicy from ctx.
func (p Policy) Start(ctx context.Context) Tries { panic("unwritten") }

// Attempt is the number of the current attempt, from 1.
func (t *Tries) Attempt() int { panic("unwritten") }

// Again reports whether another attempt is allowed, and reserves it: attempts, chain stop, hint, deadline and budget
// have been asked, in this order. After false, Reason says which of them refused.
func (t *Tries) Again(o Outcome) bool { panic("unwritten") }

// Wait waits for the next attempt. It returns the cause of the context's end if that comes first.
func (t *Tries) Wait() error { panic("unwritten") }

// Reason says why Again refused.
func (t *Tries) Reason() Reason { panic("unwritten") }

// Wrap returns err as an *Error that knows attempts, elapsed time and reason; nil stays nil.
func (t *Tries) Wrap(err error) error { panic("unwritten") }
