package httpguard

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/retry"
)

// A problem is one of the guard's own answers (RFC 9457). Titles are the headings of this package's documentation, and
// with them the types: they never change.
type problem struct {
	status int
	title  string
	detail string
}

const problemBase = "https://pkg.go.dev/github.com/tandemgo/tandem/idempotency/httpguard#hdr-"

var (
	keyMissing     = problem{http.StatusBadRequest, "Key missing", "This request needs an Idempotency-Key."}
	keyMalformed   = problem{http.StatusBadRequest, "Key malformed", "The Idempotency-Key must be one value of 1 to 255 visible ASCII characters."}
	bodyUnreadable = problem{http.StatusBadRequest, "Body unreadable", "The body could not be read."}
	scopeRefused   = problem{http.StatusForbidden, "Scope refused", "The request belongs to nobody that may make it."}
	inFlight       = problem{http.StatusConflict, "In flight", "Another request with this Idempotency-Key is being worked on."}
	outcomeUnknown = problem{http.StatusConflict, "Outcome unknown", "Another request with this Idempotency-Key began, and nobody knows how it ended."}
	answerNotKept  = problem{http.StatusGone, "Answer not kept", "The work is done; its answer could not be kept."}
	bodyTooLarge   = problem{http.StatusRequestEntityTooLarge, "Body too large", "The body is larger than this server takes."}
	keyReused      = problem{http.StatusUnprocessableEntity, "Key reused", "The Idempotency-Key was used with another request."}
	storeDown      = problem{http.StatusServiceUnavailable, "Store unavailable", "The work did not start."}
)

// comeBack bounds the Retry-After of a key in flight. The hint is the end of the lease, by which a dead owner's key is
// free; a live one has mostly answered long before.
const comeBack = 2 * time.Second

// refusal is the problem of a request whose handler did not run, and when to try again.
func refusal(err error) (problem, time.Duration) {
	switch {
	case errors.Is(err, idempotency.ErrInFlight):
		return inFlight, min(max(retry.Judge(err).Hint, time.Second), comeBack)
	case errors.Is(err, idempotency.ErrMismatch):
		return keyReused, 0
	case errors.Is(err, idempotency.ErrUnknown):
		return outcomeUnknown, 0
	case errors.Is(err, idempotency.ErrNotKept), errors.Is(err, errCorrupt):
		return answerNotKept, 0
	default:
		return storeDown, time.Second
	}
}

// write answers with p. after is rounded up: a client that comes a moment too early comes for nothing.
func (p problem) write(w http.ResponseWriter, after time.Duration) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if after > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(p.status)
	b, err := json.Marshal(map[string]any{
		"type": problemBase + strings.ReplaceAll(p.title, " ", "_"), "title": p.title, "status": p.status, "detail": p.detail,
	})
	if err != nil {
		return // a map of strings and a number
	}
	_, _ = w.Write(b) // to a client that went away
}
