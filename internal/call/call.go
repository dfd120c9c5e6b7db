package call

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The header names, in canonical form; gRPC metadata spells them in lower case.
const (
	HeaderTimeout    = "Tandem-Timeout-Ms"
	HeaderAttempt    = "Tandem-Attempt"
	HeaderRetry      = "Tandem-Retry"
	HeaderMeshTime   = "X-Envoy-Expected-Rq-Timeout-Ms"
	HeaderMeshTry    = "X-Envoy-Attempt-Count"
	HeaderRetryAfter = "Retry-After"

	MetadataAttempt  = "tandem-attempt"
	MetadataRetry    = "tandem-retry"
	MetadataMeshTime = "x-envoy-expected-rq-timeout-ms"
	MetadataMeshTry  = "x-envoy-attempt-count"
	MetadataPushback = "grpc-retry-pushback-ms"

	// RetryNo is the one value of Tandem-Retry.
	RetryNo = "no"
)

// Marks is what the user said about the next call made with a context. The first tandem layer takes it.
type Marks struct {
	Idempotent bool
	Policy     any // *retry.Policy
}

type (
	marksKey   struct{}
	inboundKey struct{}
	attemptKey struct{}
)

// WithMarks returns ctx carrying m in place of the marks it carried.
func WithMarks(ctx context.Context, m Marks) context.Context {
	return context.WithValue(ctx, marksKey{}, m)
}

// PeekMarks returns the marks of ctx and leaves them.
func PeekMarks(ctx context.Context) Marks {
	m, _ := ctx.Value(marksKey{}).(Marks)
	return m
}

// TakeMarks returns the marks of ctx, and a context without them. It allocates only where there are some.
func TakeMarks(ctx context.Context) (context.Context, Marks) {
	m := PeekMarks(ctx)
	if m == (Marks{}) {
		return ctx, m
	}
	return WithMarks(ctx, Marks{}), m
}

// Inbound is the synchronous call that a handler is answering. A nil *Inbound is a handler nobody waits for.
type Inbound struct {
	attempt int
	noRetry atomic.Bool
}

// WithInbound returns the context of a handler that answers attempt number attempt of its caller. Marks end here, and
// so does the number of an attempt, where caller and handler share a process. An attempt of zero means that nobody
// waits: a message, a job.
func WithInbound(ctx context.Context, attempt int) (context.Context, *Inbound) {
	if PeekMarks(ctx) != (Marks{}) {
		ctx = WithMarks(ctx, Marks{})
	}
	if Attempt(ctx) != 0 {
		ctx = WithAttempt(ctx, 0)
	}
	if attempt < 1 {
		return context.WithValue(ctx, inboundKey{}, (*Inbound)(nil)), nil
	}
	in := &Inbound{attempt: attempt}
	return context.WithValue(ctx, inboundKey{}, in), in
}

// InboundFrom returns the inbound call that ctx belongs to, or nil.
func InboundFrom(ctx context.Context) *Inbound {
	in, _ := ctx.Value(inboundKey{}).(*Inbound)
	return in
}

// Retried reports whether the caller is on its second attempt or a later one.
func (in *Inbound) Retried() bool { return in != nil && in.attempt > 1 }

// GiveUp records that this tier's own retries have ended, or that the handler does not want another attempt.
func (in *Inbound) GiveUp() {
	if in != nil {
		in.noRetry.Store(true)
	}
}

// GaveUp reports whether GiveUp was called.
func (in *Inbound) GaveUp() bool { return in != nil && in.noRetry.Load() }

// WithAttempt returns the context of attempt n.
func WithAttempt(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, attemptKey{}, n)
}

// Attempt returns the number of the attempt that ctx belongs to; 0 outside of any.
func Attempt(ctx context.Context) int {
	n, _ := ctx.Value(attemptKey{}).(int)
	return n
}

// ParseTimeout reads a count of milliseconds, at least 1, saturating. It refuses signs, spaces and leading zeros.
func ParseTimeout(s string) (time.Duration, bool) {
	n, ok := parseCount(s, math.MaxInt64/int64(time.Millisecond))
	return time.Duration(n) * time.Millisecond, ok
}

// FormatTimeout writes what remains as whole milliseconds, at least 1. It rounds down: nobody is promised time that is
// not there.
func FormatTimeout(d time.Duration) string {
	ms := int64(d / time.Millisecond)
	return strconv.FormatInt(max(ms, 1), 10)
}

// ParseAttempt reads the number of an attempt, at least 1, saturating.
func ParseAttempt(s string) (int, bool) {
	n, ok := parseCount(s, math.MaxInt32)
	return int(n), ok
}

// parseCount reads digits without a leading zero; anything beyond most is most.
func parseCount(s string, most int64) (int64, bool) {
	if s == "" || s[0] == '0' {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (most-int64(c-'0'))/10 {
			n = most
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// RetryAfter reads the Retry-After header (RFC 9110, 10.2.3): seconds, saturating, or one of the three forms of an HTTP
// date, taken against the response's own Date where it has one, so that a skewed clock does no harm. Negative,
// malformed and repeated values are no wish at all; a date in the past is a wish of zero.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	values := h[HeaderRetryAfter]
	if len(values) != 1 {
		return 0, false
	}
	v := strings.TrimSpace(values[0])
	digits := strings.TrimLeft(v, "0")
	if digits == "" && v != "" {
		return 0, true
	}
	if n, ok := parseCount(digits, math.MaxInt64/int64(time.Second)); ok {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(at.Sub(now), 0), true
}
