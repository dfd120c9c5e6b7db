package httpguard

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/http"
	"slices"
)

// keptHeaders describe the body and the resource. Everything else belongs to one exchange.
var keptHeaders = []string{
	"Content-Type", "Content-Language", "Content-Encoding", "Content-Disposition", "Location", "Etag", "Last-Modified", "Link",
}

// neverKept would hand one client's secrets to another exchange, or break the connection of the next one.
var neverKept = []string{
	"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Proxy-Authenticate", "Proxy-Authorization", "Authentication-Info",
	"Authorization", "Clear-Site-Data", "Date", "Age", "Content-Length", "Retry-After", "Idempotency-Key", "Idempotent-Replayed",
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

const maxKeptHeaders = 64 << 10

// An answer is what is kept of a response.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	streamed bool // sent as it came: there is nothing to keep
}

func (a *answer) replay(w http.ResponseWriter) {
	h := w.Header()
	maps.Copy(h, a.header)
	h.Set(replayedHeader, "true")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // to a client that went away
}

// codec writes answers: version, status, headers in order of their names, body. The bytes are stored: a release reads
// what the one before it wrote.
type codec struct{}

const codecVersion = 1

var (
	errStreamed = errors.New("httpguard: the answer was streamed")
	errCorrupt  = errors.New("httpguard: not a kept answer")
)

func (codec) ContentType() string { return "application/vnd.tandem.answer" }

func (codec) Encode(v any) ([]byte, error) {
	a, ok := v.(*answer)
	if !ok || a == nil || a.streamed {
		return nil, errStreamed
	}
	b := make([]byte, 0, 256+len(a.body))
	b = append(b, codecVersion)
	b = binary.AppendUvarint(b, uint64(a.status))
	pairs := 0
	for _, values := range a.header {
		pairs += len(values)
	}
	b = binary.AppendUvarint(b, uint64(pairs))
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		for _, value := range a.header[name] {
			b = appendString(b, name)
			b = appendString(b, value)
		}
	}
	return append(b, a.body...), nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (codec) Decode(b []byte, v any) error {
	to, ok := v.(**answer)
	if !ok || len(b) == 0 || b[0] != codecVersion {
		return errCorrupt
	}
	r := reader{b: b[1:]}
	a := &answer{status: int(r.uvarint()), header: make(http.Header)}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		name := r.string()
		a.header[name] = append(a.header[name], r.string())
	}
	if r.bad || a.status < 200 || a.status > 999 {
		return errCorrupt
	}
	a.body = r.b
	*to = a
	return nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
