package httpguard

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
)

// A recorder holds the answer back until it is recorded. What cannot be held (a flush, a hijack, trailers, too many
// bytes) goes to the client from then on. Header is that of the client's writer, as an outer layer left it.
type recorder struct {
	w      http.ResponseWriter
	limit  int
	begun  func(status int) // called when the handler has said how it answers
	status int
	header http.Header // as it was at WriteHeader
	body   []byte

	passing  bool
	hijacked bool
}

// hijacked is the status of an answer that nobody here sees.
const hijacked = -1

func (r *recorder) Header() http.Header { return r.w.Header() }

// Unwrap is for http.ResponseController: deadlines and full duplex are the client's writer's.
func (r *recorder) Unwrap() http.ResponseWriter { return r.w }

func (r *recorder) WriteHeader(status int) {
	if r.status != 0 || r.hijacked {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("httpguard: invalid WriteHeader code %d", status)) // as net/http does
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		r.w.WriteHeader(status) // an informational answer comes before the answer and is none
		return
	}
	r.status = status
	r.header = r.w.Header().Clone()
	r.begun(status)
	if r.header["Trailer"] != nil {
		r.pass()
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if !r.passing && len(r.body)+len(b) > r.limit {
		r.pass()
	}
	if r.passing {
		return r.w.Write(b)
	}
	r.body = append(r.body, b...)
	return len(b), nil
}

// Flush and FlushError implement what http.Flusher and http.ResponseController look for.
func (r *recorder) Flush() { _ = r.FlushError() }

// FlushError sends what there is: a client that was promised a stream waits for it.
func (r *recorder) FlushError() error {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	r.pass()
	return http.NewResponseController(r.w).Flush()
}

// Hijack implements http.Hijacker where the client's writer does.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.w).Hijack()
	if err == nil {
		r.passing, r.hijacked = true, true
		r.begun(hijacked)
	}
	return conn, rw, err
}

// finish is called when the handler has returned.
func (r *recorder) finish() {
	if r.hijacked {
		return
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	for name := range r.w.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) { // a trailer that was not announced
			r.pass()
			return
		}
	}
}

// pass sends what was held back, and what follows as it comes.
func (r *recorder) pass() {
	if r.passing {
		return
	}
	r.passing = true
	r.send()
	r.body = nil
}

// send writes the answer to the client with the headers of WriteHeader, as net/http does; only trailers may be set
// after that.
func (r *recorder) send() {
	h := r.w.Header()
	for name, values := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			r.header[name] = values
		}
	}
	replace(h, r.header)
	r.w.WriteHeader(r.status)
	if len(r.body) > 0 {
		_, _ = r.w.Write(r.body) // a client that went away has its answer kept
	}
}

func (r *recorder) answer(headers []string) *answer {
	a := &answer{status: r.status, body: r.body, streamed: r.passing, header: make(http.Header)}
	for _, name := range headers {
		if values := r.header[name]; len(values) > 0 {
			a.header[name] = values
		}
	}
	return a
}

func replace(h, by http.Header) {
	clear(h)
	maps.Copy(h, by)
}
