package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/internal/call"
	"github.com/tandemgo/tandem/retry"
)

// A StatusError is why a response was not the end of a call: what retry.Event tells of it, and what a call came to
// whose context ended while it waited for the next attempt.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("client: server answered %d %s", e.Status, http.StatusText(e.Status))
}

// StatusCode returns the status of the response.
func (e *StatusError) StatusCode() int { return e.Status }

// A result is what is known of an attempt when it has ended.
type result struct {
	request  *http.Request
	response *http.Response
	err      error // nil with a response
	ended    error // how the caller had ended the call by then; nil if it had not
	late     bool  // our own timer ended it
	spent    bool  // the time that the server was told of is over, or as good as over
	enough   bool  // it ran for long enough to say something about the server, though it was cut short
	source   error // how the body of the request broke; nil if it did not
	now      time.Time
}

// A verdict is what a result means for the try loop and for the breaker.
type verdict struct {
	err     error // why the attempt failed; nil for an answer
	hint    time.Duration
	hinted  bool
	worth   bool // another attempt could come to something else
	unsent  bool // the server provably has not seen the request
	free    bool // and it was no load on anybody
	told    bool // the server said that there is to be no other attempt
	breaker breaker.Outcome
}

// judge is a function of its arguments alone. Errors are known by their types, never by their texts.
func judge(r result, serverErrors bool) verdict {
	if r.response != nil {
		v := judgeResponse(r.response, r.now, serverErrors)
		if r.spent && !r.enough && v.breaker == breaker.Failure {
			v.breaker = breaker.Ignored // the server ran out of our time, as we do
		}
		return v
	}
	v := verdict{err: r.err, breaker: breaker.Failure}
	switch {
	case r.ended != nil:
		// A caller who went away says nothing about the server. One whose time ran out does, if the server had some.
		if !errors.Is(r.ended, context.DeadlineExceeded) || !r.enough {
			v.breaker = breaker.Ignored
		}
	case r.late:
		v.worth = true
		if !r.enough {
			v.breaker = breaker.Ignored
		}
	case malformed(r.request), r.source != nil && errors.Is(r.err, r.source):
		v.breaker = breaker.Ignored // nothing was sent, or not all of it, and that is not the server's doing
	default:
		v.worth = !hopeless(r.err)
		v.unsent = undialled(r.err)
		v.ask(r.err)
	}
	return v
}

// ask lets the error of the base speak for itself, in the words of package retry. The base may be another client.
func (v *verdict) ask(err error) {
	o := retry.Judge(err)
	v.worth = v.worth && !o.Stop
	v.hint, v.hinted = o.Hint, o.Hinted
	if o.Refused {
		v.unsent, v.free, v.breaker = true, true, breaker.Ignored
	}
}

func judgeResponse(res *http.Response, now time.Time, serverErrors bool) (v verdict) {
	status := res.StatusCode
	if status >= 500 && status != http.StatusNotImplemented { // 501 is an answer about the request
		v.breaker = breaker.Failure
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		v.worth = true
	case http.StatusInternalServerError:
		v.worth = serverErrors
	}
	if !v.worth && v.breaker == breaker.Success {
		return v
	}
	v.told = res.Header.Get(call.HeaderRetry) == call.RetryNo
	if v.told {
		v.breaker = breaker.Ignored // that tier is well: it is one behind it that is not
	}
	if v.worth {
		v.err = &StatusError{status}
		v.hint, v.hinted = call.RetryAfter(res.Header, now)
	}
	return v
}

// hopeless reports whether err would come again: a certificate, a name that does not exist, an address that is none.
func hopeless(err error) bool {
	if errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, errNoAnswer) {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		return true // how crypto/tls says that one side sent an alert; the alert itself has no exported type
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.IsNotFound
	}
	return is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) ||
		is[*tls.ECHRejectionError](err) || is[x509.UnknownAuthorityError](err) || is[x509.HostnameError](err) ||
		is[x509.CertificateInvalidError](err) || is[x509.SystemRootsError](err) ||
		is[x509.InsecureAlgorithmError](err) || is[*net.AddrError](err) || is[*net.ParseError](err) ||
		is[net.UnknownNetworkError](err) || is[net.InvalidAddrError](err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// undialled reports whether err is that of a connection that never came about, so that nothing was sent over it. Where
// the base is another client, that is so only if there was no attempt before.
func undialled(err error) bool {
	if e, ok := errors.AsType[*retry.Error](err); ok && e.Attempts > 1 {
		return false
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "dial" || op.Op == "proxyconnect")
}

// malformed reports whether net/http refuses to send r, which it says with errors that have no type.
func malformed(r *http.Request) bool {
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" || r.Method != "" && !token(r.Method) {
		return true
	}
	return badHeader(r.Header) || badHeader(r.Trailer)
}

func badHeader(h http.Header) bool {
	for name, values := range h {
		if !token(name) {
			return true
		}
		for _, v := range values {
			for i := range len(v) {
				if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
					return true
				}
			}
		}
	}
	return false
}

// token is that of RFC 9110, 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '!', '#' <= c && c <= '\'', c == '*', c == '+', c == '-', c == '.', c == '^', c == '_', c == '`', c == '|', c == '~':
		default:
			return false
		}
	}
	return s != ""
}

// repeatable reports whether the method of r, or what the caller wrote into its headers, says that it may happen twice:
// the idempotent methods of RFC 9110, 9.2.2, and the key in the two spellings that net/http knows, present even
// without a value.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	if _, ok := r.Header["Idempotency-Key"]; ok {
		return true
	}
	_, ok := r.Header["X-Idempotency-Key"]
	return ok
}

// rewindable reports whether the body of r can be sent again.
func rewindable(r *http.Request) bool {
	return r.Body == nil || r.Body == http.NoBody || r.GetBody != nil
}
