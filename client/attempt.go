package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

// An attempt is one request on the wire: its context, its copy of the request, its timer, and the body of its response.
// They are one allocation. As a context it is its parent, or a cancellable child of it, with a deadline of its own.
type attempt struct {
	context.Context
	cancel context.CancelCauseFunc // nil: nothing can end it before its parent
	timer  *time.Timer             // of the attempt timeout, then of the silent body; nil: neither
	late   timeoutError            // what ends it when the timer fires
	fired  bool                    // it did, before there was a response

	started  time.Time
	deadline time.Time     // that the timer enforces; zero: the caller's comes first
	idle     time.Duration // the longest silence of the body; zero: not bounded

	request http.Request
	value   [2]string // of the headers written here
	upload  upload
	body    body
}

// A timeoutError is a timeout of this package. To net.Error and to url.Error it is a timeout, to errors.Is it is
// context.DeadlineExceeded, like the end of any other deadline.
type timeoutError struct {
	what  string
	after time.Duration
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("client: %s within %v", e.what, e.after.Round(time.Microsecond))
}

func (e *timeoutError) Timeout() bool        { return true }
func (e *timeoutError) Temporary() bool      { return true } // net.Error wants it
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Deadline implements context.Context: it is what goes over the wire.
func (a *attempt) Deadline() (time.Time, bool) {
	if a.deadline.IsZero() {
		return a.Context.Deadline()
	}
	return a.deadline, true
}

// Err implements context.Context. Time that has run out is told as such, though the child was only cancelled.
func (a *attempt) Err() error {
	err := a.Context.Err()
	if err != nil && a.expired() {
		return context.DeadlineExceeded
	}
	return err
}

// expired reports whether the timer ended this attempt, and not its parent.
func (a *attempt) expired() bool {
	return a.cancel != nil && errors.Is(context.Cause(a.Context), &a.late) // this very one, not that of a client around
}

// begin makes the attempt ready to be sent in at most limit. A limit of NoTimeout, or one that the deadline of the
// caller undercuts, needs no timer.
func (a *attempt) begin(c *exchange, now time.Time, limit time.Duration, what string) {
	a.Context, a.started = c.tries.Context(), now
	if c.t.idle < NoTimeout {
		a.idle = c.t.idle
	}
	if limit < NoTimeout {
		at := now.Add(limit)
		if theirs, ok := c.r.Context().Deadline(); !ok || at.Before(theirs) {
			a.deadline = at
		}
	}
	if a.deadline.IsZero() && a.idle == 0 {
		return
	}
	a.Context, a.cancel = context.WithCancelCause(a.Context)
	if !a.deadline.IsZero() {
		a.late = timeoutError{what, limit}
		a.timer = time.AfterFunc(limit, a.expire)
	}
}

// expire is called by the timer.
func (a *attempt) expire() { a.cancel(&a.late) }

// end releases what the attempt holds of its parent and of the clock.
func (a *attempt) end() {
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
}

// send gives the request its body. One that cannot be made again comes from somewhere else as it is sent, and may break
// there.
func (a *attempt) send(b io.ReadCloser) {
	if b != nil && b != http.NoBody && a.request.GetBody == nil {
		a.upload.ReadCloser = b
		b = &a.upload
	}
	a.request.Body = b
}

// tell writes the deadline and the number of the attempt. Only here the caller's headers are copied; their values are
// shared, and never changed.
func (a *attempt) tell(h Headers, number int) {
	deadline, bounded := a.Deadline()
	if h == HeadersNone || !bounded && number == 1 {
		return
	}
	timeout, try := call.HeaderTimeout, call.HeaderAttempt
	if h == HeadersMesh {
		timeout, try = call.HeaderMeshTime, call.HeaderMeshTry
	}
	header := make(http.Header, len(a.request.Header)+2)
	for k, v := range a.request.Header {
		header[k] = v
	}
	if bounded {
		a.value[0] = call.FormatTimeout(deadline.Sub(a.started))
		header[timeout] = a.value[0:1:1]
	}
	if number > 1 {
		a.value[1] = strconv.Itoa(number)
		header[try] = a.value[1:2:2]
	}
	a.request.Header = header
}

var errNoAnswer = errors.New("client: the base transport returned neither a response nor an error")

// settle takes what the base returned. From here on it is a response or an error, and no timer runs against it.
func (a *attempt) settle(res *http.Response, err error) (*http.Response, error) {
	switch {
	case a.timer != nil && !a.timer.Stop():
		// Stop decides the race between the timer and the headers: a response whose context is about to be cancelled
		// is given to nobody.
		late := a.late // a copy, so that the error does not keep the request
		err, a.fired = &late, true
	case res == nil && err == nil:
		err = errNoAnswer
	case err == nil:
		return res, nil
	}
	if res != nil && res.Body != nil {
		res.Body.Close()
	}
	a.end()
	return nil, err
}
