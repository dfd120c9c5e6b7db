package httpguard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

const (
	header         = "Idempotency-Key"
	replayedHeader = "Idempotent-Replayed"
)

// Config configures New. The zero Config is right in production.
type Config struct {
	Methods  []string      // guarded methods. Zero: POST and PATCH
	Optional bool          // a guarded request without a key passes unguarded. Zero: 400
	Lease    time.Duration // extended while the handler works. Zero: 30 s
	Retain   time.Duration // how long an answer is kept. Zero: 24 h
	Wait     time.Duration // how long a duplicate waits for the first answer. Zero: not; 409
	Park     bool          // as in idempotency.Config
	// MaxRequestBytes bounds the request body; a larger one is 413. Zero: 1 MiB.
	MaxRequestBytes int64
	// MaxKeptBytes bounds the body of an answer that is kept; a larger one becomes a tombstone. Zero: 256 KiB.
	MaxKeptBytes int
	// Detach: the handler goes on when the client goes away, and its answer waits for the next try. Its context then
	// has no deadline of the request's. Zero: its context ends.
	Detach bool
	// Keep says whether an answer is kept. Zero: 2xx, 3xx and the client errors that would happen again.
	Keep func(status int) bool
	// Headers of an answer that are kept beside the default ones. Cookies, challenges, dates and what belongs to the
	// connection are refused. Zero: none.
	Headers []string
	// OnEvent is called with each step. Zero: nothing is called.
	OnEvent func(ctx context.Context, e idempotency.Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// New returns a middleware. scope names the tenant and must not be nil: two tenants may use one key. The method and the
// path are part of the scope already. An error of scope is 403, and so is an empty name. The middleware, and what it
// returns, may be used by any number of goroutines at once.
func New(s idempotency.Store, scope func(*http.Request) (string, error), c Config) (func(http.Handler) http.Handler, error) {
	if err := c.validate(s, scope); err != nil {
		return nil, err
	}
	if c.Methods == nil {
		c.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 1 << 20
	}
	if c.MaxKeptBytes == 0 {
		c.MaxKeptBytes = 256 << 10
	}
	if c.Keep == nil {
		c.Keep = kept
	}
	headers := slices.Clone(keptHeaders)
	for _, h := range c.Headers {
		headers = append(headers, textproto.CanonicalMIMEHeaderKey(h))
	}
	return func(next http.Handler) http.Handler {
		return &guard{store: s, scope: scope, config: c, headers: headers, next: next}
	}, nil
}

func (c Config) validate(s idempotency.Store, scope func(*http.Request) (string, error)) error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("httpguard: "+format, args...))
		}
	}
	fault(scope == nil, "no scope: two tenants may use one key")
	for field, d := range map[string]time.Duration{"Lease": c.Lease, "Retain": c.Retain, "Wait": c.Wait} {
		fault(d < 0, "%s is negative", field)
	}
	fault(c.MaxRequestBytes < 0, "MaxRequestBytes is negative")
	fault(c.MaxKeptBytes < 0, "MaxKeptBytes is negative")
	fault(c.Methods != nil && len(c.Methods) == 0, "Methods is empty: nothing would be guarded")
	for _, m := range c.Methods {
		fault(m == "" || m != strings.ToUpper(m), "method %q is none that is ever requested", m)
	}
	for _, h := range c.Headers {
		fault(slices.Contains(neverKept, textproto.CanonicalMIMEHeaderKey(h)), "header %q is never kept", h)
	}
	if s == nil {
		fault(true, "no store")
		return errors.Join(faults...)
	}
	p := s.Promises()
	fault(c.Lease > 0 && c.Lease < p.MinLease, "Lease %v, this store needs %v", c.Lease, p.MinLease)
	fault(c.Park && !p.Park, "this store cannot Park")
	return errors.Join(faults...)
}

// kept is the default Keep: what would happen again under the same request. A refusal that the caller can do something
// about (401, 403, 408, 409, 423, 425, 429) and any failure of the server would poison the key.
func kept(status int) bool {
	switch status {
	case 400, 402, 404, 405, 406, 410, 413, 414, 415, 416, 422, 451:
		return true
	}
	return status >= 200 && status < 400
}

type guard struct {
	store   idempotency.Store
	scope   func(*http.Request) (string, error)
	config  Config
	headers []string
	next    http.Handler
}

// errGivenUp is the answer of a handler that is not kept: it is sent, and the key is free.
var errGivenUp = errors.New("httpguard: not kept")

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	values := r.Header.Values(header)
	if !slices.Contains(g.config.Methods, r.Method) || (len(values) == 0 && g.config.Optional) {
		g.next.ServeHTTP(w, r)
		return
	}
	if len(values) == 0 {
		keyMissing.write(w, 0)
		return
	}
	id, ok := parseKey(values)
	if !ok {
		keyMalformed.write(w, 0)
		return
	}
	tenant, err := g.scope(r)
	if err != nil || tenant == "" {
		if g.config.Log != nil {
			g.config.Log.WarnContext(r.Context(), "httpguard: scope refused", "error", err)
		}
		scopeRefused.write(w, 0)
		return
	}
	body, p := g.read(w, r)
	if p != nil {
		p.write(w, 0)
		return
	}
	g.serve(w, r, idempotency.Key{Scope: scopeOf(tenant, r), ID: id}, body)
}

// serve answers one request with a key. The recorder has answered already where the handler streamed.
func (g *guard) serve(w http.ResponseWriter, r *http.Request, key idempotency.Key, body []byte) {
	ctx := r.Context()
	if g.config.Detach {
		ctx = context.WithoutCancel(ctx)
	}
	before := w.Header().Clone()
	var rec *recorder
	kept := false // the answer of the handler, once it has begun
	first, err := idempotency.Do(ctx, g.store, key, g.use(r, body), func(ctx context.Context) (*answer, error) {
		rec = &recorder{w: w, limit: g.config.MaxKeptBytes, begun: func(status int) {
			if kept = status == hijacked || g.keep(status); kept {
				idempotency.Done(ctx)
			}
		}}
		inner := r.WithContext(ctx)
		inner.Body = io.NopCloser(bytes.NewReader(body))
		g.next.ServeHTTP(rec, inner)
		rec.finish()
		if !kept {
			return nil, errGivenUp
		}
		return rec.answer(g.headers), nil
	})
	switch {
	case rec == nil && err == nil:
		first.replay(w)
	case rec == nil:
		p, after := refusal(err)
		p.write(w, after)
	case rec.passing:
		// The client has it already.
	case errors.Is(err, idempotency.ErrLost) && !errors.Is(err, errGivenUp):
		// Another owner took over. Whoever repeats the request gets what that one recorded; so does this client.
		replace(w.Header(), before)
		inFlight.write(w, time.Second)
	default:
		rec.send()
	}
}

func (g *guard) use(r *http.Request, body []byte) idempotency.Config {
	return idempotency.Config{
		Fingerprint: fingerprint(r, body),
		Lease:       g.config.Lease,
		Retain:      g.config.Retain,
		Wait:        g.config.Wait,
		Park:        g.config.Park,
		MaxBytes:    min(g.config.MaxKeptBytes, math.MaxInt-maxKeptHeaders) + maxKeptHeaders,
		Codec:       codec{},
		OnEvent:     g.config.OnEvent,
		Log:         g.config.Log,
	}
}

// keep asks the user. The effect is there: a panic keeps the answer.
func (g *guard) keep(status int) (yes bool) {
	defer func() {
		if recover() != nil {
			yes = true
		}
	}()
	return g.config.Keep(status)
}

// read returns the whole body: it is part of the fingerprint, and a part of it would make two large bodies look alike.
func (g *guard) read(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > g.config.MaxRequestBytes {
		return nil, &bodyTooLarge
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.config.MaxRequestBytes))
	if err == nil && len(b) == 0 && r.ContentLength > 0 {
		// Somebody outside has read it, as http.Request.ParseForm does. Without it, two requests would look alike.
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		return b, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &bodyTooLarge
	}
	return nil, &bodyUnreadable
}

// scopeOf keeps tenants, methods and paths apart. The tenant is quoted, so that no tenant can be named like another
// one's path; what is long is hashed.
func scopeOf(tenant string, r *http.Request) string {
	return short(strconv.Quote(tenant)) + " " + r.Method + " " + short(pathOf(r))
}

// pathOf is the path that the client asked for. r.URL is what is left of it: within http.StripPrefix two routes would be
// one.
func pathOf(r *http.Request) string {
	target, _, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(target, "/") {
		return target
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil { // as a proxy is asked
		return u.EscapedPath()
	}
	return r.URL.EscapedPath()
}

func short(s string) string {
	if len(s) <= 512 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// fingerprint is what makes two requests the same: no header is in it, since most of them change per attempt. Each part
// stands behind its length. The first byte is the version of this rule.
func fingerprint(r *http.Request, body []byte) []byte {
	head := make([]byte, 1, 256)
	head[0] = 1
	for _, part := range []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery} {
		head = append(binary.AppendUvarint(head, uint64(len(part))), part...)
	}
	h := sha256.New()
	h.Write(binary.AppendUvarint(head, uint64(len(body))))
	h.Write(body)
	return h.Sum(nil)
}
