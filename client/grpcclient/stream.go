package grpcclient

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
)

// stream is a grpc.StreamClientInterceptor.
func (p *policy) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s := &stream{exchange: exchange{policy: p}, desc: desc, streamer: streamer, opts: opts}
	s.begin(ctx, nil, method, cc, NoTimeout)
	if err := s.over(); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil { //nolint:contextcheck // a breaker is told no context
		return nil, err
	}
	return s, nil
}

// stream is a grpc.ClientStream. Until the first message or header reached the application it may be another one
// underneath from one moment to the next; from then on it is the one that it has.
//
// As with grpc's own, one goroutine may send while another receives. The try loop runs in the goroutine that opens or
// receives; whoever sends only leaves the request where the loop finds it.
type stream struct {
	exchange
	desc     *grpc.StreamDesc
	streamer grpc.Streamer
	opts     []grpc.CallOption

	settled bool  // the first message, or the end, was received; only the receiver knows
	final   error // what the try loop ended with; only the receiver knows

	mu        sync.Mutex
	current   *streamAttempt
	between   chan struct{} // closed when there is a current attempt again; nil: there is one
	committed bool          // the application has asked for something of the current attempt other than messages
	request   any           // of a stream that only the server sends on; nil: not sent yet
	closed    bool          // for sending
}

// RecvMsg implements grpc.ClientStream. Up to the first message it is the try loop; what comes after it is passed on as
// it is.
func (s *stream) RecvMsg(m any) error {
	for !s.settled {
		a := s.take(false)
		err := s.receive(a, m)
		if s.arrived(a, err) {
			s.settle(nil)
			return a.pass(err, s.desc)
		}
		if err == nil { // it came too late
			err = errLate
			a.finish(m)
		}
		if end := s.replace(a, err); end != nil {
			s.settle(end)
			return end
		}
		reset(m)
	}
	if s.final != nil {
		return s.final
	}
	a := s.take(false)
	return a.pass(a.ClientStream.RecvMsg(m), s.desc)
}

// settle ends the try loop, with the error of the stream or with an attempt that is the last. The request, which may be
// large, is not needed any more.
func (s *stream) settle(end error) {
	s.settled, s.final = true, end
	s.mu.Lock()
	s.request = nil
	s.mu.Unlock()
}

// receive receives, unless a send has already learnt that the stream is broken.
func (s *stream) receive(a *streamAttempt, m any) error {
	s.mu.Lock()
	err := a.failure
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return a.ClientStream.RecvMsg(m)
}

// arrived reports whether err is that of a first message, or of an orderly end without any.
func (s *stream) arrived(a *streamAttempt, err error) bool {
	switch {
	case err == nil && s.desc.ServerStreams:
		if !a.establish() {
			return false // its context has just been cancelled
		}
	case err == nil, errors.Is(err, io.EOF):
	default:
		return false
	}
	a.permit.Done(breaker.Success)
	s.tell(nil)
	return true
}

// replace puts another attempt in the place of a, which failed with err, or returns the error of the stream. A stream
// that may not be repeated is not failed for that: the error is the one that there is.
func (s *stream) replace(a *streamAttempt, err error) error {
	v := s.judge(failure{
		err: err, trailer: a.Trailer(), timedOut: a.late() && timedOut(err), took: time.Since(s.start),
	})
	s.mu.Lock()
	if s.committed || s.desc.ClientStreams {
		v.Stop = true
	} else {
		s.between = make(chan struct{})
	}
	s.mu.Unlock()
	a.end(v.breaker)
	s.tell(v.Err)
	if err = s.next(v); err == nil {
		err = s.open()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.between != nil { // there will be no other one
		close(s.between)
		s.between = nil
	}
	return err
}

// open makes attempts until one has a stream, on which everything was sent that was sent before.
func (s *stream) open() error {
	for {
		v, ok := s.attempt()
		if ok {
			return nil
		}
		if err := s.next(v); err != nil {
			return err
		}
	}
}

// next decides what follows a failed attempt: nil, after a wait, another one; else the error of the stream.
func (s *stream) next(v verdict) error {
	if !s.again(v) {
		return s.fail(v, nil)
	}
	if err := s.wait(); err != nil {
		return s.fail(v, err)
	}
	forget(s.opts)
	return nil
}

// attempt opens a stream: breaker, attempt timeout, wire.
func (s *stream) attempt() (v verdict, ok bool) {
	permit, err := s.breaker.Allow()
	if err != nil {
		return s.refused(err), false
	}
	a := &streamAttempt{permit: permit}
	v.breaker = breaker.Ignored // what a panic leaves
	defer func() {
		if !ok {
			a.end(v.breaker)
		}
	}()
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(s.tries.Context()) // lives as long as the stream: the timer is apart from it
	s.watch(a)
	w := &wire{}
	a.ClientStream, err = s.streamer(s.outgoing(ctx), s.desc, s.cc, s.method, w.options(s.opts, s.cc)...)
	if err == nil {
		err = s.install(a)
	}
	if err == nil {
		return v, true
	}
	f := failure{err: err, timedOut: a.late() && timedOut(err), took: time.Since(s.start)}
	if a.ClientStream == nil { // else grpc may still write the trailer
		f.trailer, f.unbegun = w.sent(), w.unbegun()
	}
	v = s.judge(f)
	v.Stop = v.Stop || errors.Is(err, errLate) // nor may what it collects for the caller be given to another attempt
	s.tell(v.Err)
	return v, false
}

// watch sets the timer of an attempt.
func (s *stream) watch(a *streamAttempt) {
	limit, timer := s.limit()
	if !timer {
		a.timer = time.AfterFunc(call.Patience(s.AttemptTimeout), a.release)
		return
	}
	a.timer = time.AfterFunc(limit, func() {
		outcome := breaker.Ignored
		if s.caller.Err() == nil {
			outcome = s.blame(context.DeadlineExceeded, limit)
		}
		a.expire(outcome)
	})
}

// install makes a the current attempt, once all that was sent before has been sent on it as well. The application may
// be sending at this moment; nothing is sent twice on one attempt.
func (s *stream) install(a *streamAttempt) error {
	if s.desc.ClientStreams {
		if !a.establish() {
			return errLate
		}
		a.timer = time.AfterFunc(call.Patience(s.AttemptTimeout), a.release)
	}
	for sent, closed := false, false; ; {
		s.mu.Lock()
		request, closing := s.request, s.closed
		if (request == nil || sent) && (!closing || closed) {
			s.current = a
			if s.between != nil {
				close(s.between)
				s.between = nil
			}
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if request != nil && !sent {
			sent = true
			if err := a.SendMsg(request); err != nil && !errors.Is(err, io.EOF) { // EOF: the next receive says why
				return err
			}
			continue
		}
		closed = true
		if err := a.CloseSend(); err != nil {
			return err
		}
	}
}

// take returns the current attempt, once there is one. With commit it stays the current one.
func (s *stream) take(commit bool) *streamAttempt {
	for {
		s.mu.Lock()
		a, between := s.current, s.between
		if between == nil {
			s.committed = s.committed || commit
		}
		s.mu.Unlock()
		if between == nil {
			return a
		}
		<-between
	}
}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	if s.desc.ClientStreams {
		a := s.take(false)
		err := a.ClientStream.SendMsg(m)
		if err != nil && !errors.Is(err, io.EOF) {
			a.end(breaker.Ignored)
		}
		return err
	}
	s.mu.Lock()
	s.request = m
	a, between := s.current, s.between
	s.mu.Unlock()
	if between != nil {
		return nil // the next attempt sends it
	}
	err := a.ClientStream.SendMsg(m)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil // generated code takes EOF for a failure; the receiver learns what happened
	case statusOf(err).Code() == codes.Unavailable:
		s.mu.Lock()
		a.failure = err // for the try loop, which runs in the receiver
		s.mu.Unlock()
		return nil
	default:
		a.end(breaker.Ignored)
		return err
	}
}

// CloseSend implements grpc.ClientStream.
func (s *stream) CloseSend() error {
	s.mu.Lock()
	s.closed = true
	a, between := s.current, s.between
	s.mu.Unlock()
	if between != nil {
		return nil
	}
	return a.ClientStream.CloseSend()
}

// Header implements grpc.ClientStream. From the moment it is asked for, the attempt is the only one: a header and the
// messages after it must be of the same.
func (s *stream) Header() (metadata.MD, error) {
	a := s.take(true)
	md, err := a.ClientStream.Header()
	if err == nil && md != nil && a.establish() {
		a.permit.Done(breaker.Success)
	}
	return md, err
}

// Trailer implements grpc.ClientStream.
func (s *stream) Trailer() metadata.MD { return s.take(false).ClientStream.Trailer() }

// Context implements grpc.ClientStream. As with grpc's own, it ends the retries.
func (s *stream) Context() context.Context { return s.take(true).ClientStream.Context() }

// streamAttempt is one grpc.ClientStream with what ends with it.
type streamAttempt struct {
	grpc.ClientStream
	cancel  context.CancelFunc
	permit  *breaker.Permit
	timer   *time.Timer
	state   atomic.Int32
	failure error // of a send, told by the next receive
}

// The states of an attempt: running, then what comes first.
const (
	running int32 = iota
	established
	expired
)

var errLate = status.Error(codes.DeadlineExceeded, "attempt timeout exceeded")

// establish ends the attempt timeout. It reports false if that came first.
func (a *streamAttempt) establish() bool {
	a.timer.Stop()
	return a.state.CompareAndSwap(running, established) || a.state.Load() == established
}

// expire ends an attempt that is not established in time. Nobody may be receiving, so it tells the breaker as well.
func (a *streamAttempt) expire(o breaker.Outcome) {
	if a.state.CompareAndSwap(running, expired) {
		a.permit.Done(o)
		a.cancel()
	}
}

func (a *streamAttempt) late() bool { return a.state.Load() == expired }

// finish waits until grpc is done with an attempt that was cancelled, so that nothing of it, such as its trailer, is
// written from then on.
func (a *streamAttempt) finish(m any) {
	a.cancel()
	for a.ClientStream.RecvMsg(m) == nil {
	}
}

// release gives back the permit of an attempt of which nothing is known yet and that no timeout bounds.
func (a *streamAttempt) release() { a.permit.Done(breaker.Ignored) }

// end releases everything; the timer's own function must not call it. Of several outcomes the permit counts the first.
func (a *streamAttempt) end(o breaker.Outcome) {
	a.permit.Done(o)
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel()
	}
}

// pass ends the attempt with its stream.
func (a *streamAttempt) pass(err error, desc *grpc.StreamDesc) error {
	if err != nil || !desc.ServerStreams {
		a.end(breaker.Ignored)
	}
	return err
}
