package client

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// An upload is the body of a request, which remembers how it broke: that is no failure of the server.
type upload struct {
	io.ReadCloser
	broke atomic.Pointer[error] // the base may read while it returns
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		broke := err
		u.broke.CompareAndSwap(nil, &broke)
	}
	return n, err
}

// err is how it broke; nil if it did not.
func (u *upload) err() error {
	if broke := u.broke.Load(); broke != nil {
		return *broke
	}
	return nil
}

// A body is that of a response that was handed out. The context of its attempt ends with it, not with the headers, and
// a silence that is too long ends both.
type body struct {
	io.ReadCloser // the base's
	attempt       *attempt
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	a := b.attempt
	if a.idle > 0 {
		a.timer.Reset(a.idle)
	}
	n, err := b.ReadCloser.Read(p)
	if a.idle > 0 {
		a.timer.Stop()
	}
	if err == nil {
		return n, nil
	}
	if err != io.EOF && a.expired() {
		late := a.late
		err = &late
	}
	a.end()
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.attempt.end()
	return err
}

// A stream is the body of a switched protocol (101): it is written to as well, and may be silent.
type stream struct {
	*body
	io.Writer
}

// CloseWrite is that of net/http, which has it since Go 1.26.
func (s *stream) CloseWrite() error {
	if half, ok := s.Writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("client: CloseWrite: %w", http.ErrNotSupported)
}

// hold ties the attempt to the body of the response that is handed out.
func (a *attempt) hold(res *http.Response) {
	if a.cancel == nil {
		return
	}
	if res.Body == nil || res.Body == http.NoBody {
		a.end()
		return
	}
	a.body = body{res.Body, a}
	if w, ok := res.Body.(io.Writer); ok && res.StatusCode == http.StatusSwitchingProtocols {
		a.idle = 0
		res.Body = &stream{&a.body, w}
		return
	}
	res.Body = &a.body
	if a.idle == 0 {
		return
	}
	a.late = timeoutError{"no more of the body", a.idle}
	if a.timer == nil {
		a.timer = time.AfterFunc(a.idle, a.expire)
		a.timer.Stop()
	}
}

const (
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

// discard drains and closes the body of a response that nobody will read, so that its connection can serve the next
// attempt. Bytes and time are bounded: what is longer or slower costs its connection.
func (a *attempt) discard(res *http.Response, most time.Duration) {
	defer a.end()
	if res.Body == nil {
		return
	}
	defer res.Body.Close()
	if res.ContentLength > drainBytes {
		return
	}
	stop := func() { a.cancel(nil) }
	if a.cancel == nil {
		stop = func() { res.Body.Close() } // net/http lets a body be closed while it is read
	}
	timer := time.AfterFunc(most, stop)
	defer timer.Stop()
	// One byte more, to see the end of a body of exactly that many. How it ends does not matter: it is discarded.
	_, _ = io.CopyN(io.Discard, res.Body, drainBytes+1)
}
