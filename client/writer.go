package client

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"github.com/tandemgo/tandem/internal/call"
)

// A writer adds Tandem-Retry to a refusal, at the last moment at which a header can be added, and ends the caller's
// deadline with the header.
type writer struct {
	http.ResponseWriter
	in    *call.Inbound
	until *handling // nil: no deadline
	wrote bool      // the final header
}

// answered notes that the final header goes out, and reports whether it is the first time.
func (w *writer) answered() bool {
	if w.wrote {
		return false
	}
	w.wrote = true
	w.until.answer()
	return true
}

// WriteHeader implements http.ResponseWriter. A handler that writes without it answers 200, which is no refusal.
func (w *writer) WriteHeader(status int) {
	// 1xx may come many times before the final header, but for 101, which is one.
	if (status >= 200 || status == http.StatusSwitchingProtocols) && w.answered() {
		refusal := status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
		if refusal && w.in.GaveUp() {
			w.Header().Set(call.HeaderRetry, call.RetryNo)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.answered()
	return w.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	w.answered()
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom implements io.ReaderFrom, so that a file still goes to the socket without a copy.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.answered()
	return io.Copy(w.ResponseWriter, r) // which asks the server's writer for its ReadFrom
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A handler finds out by a type assertion whether it can flush or hijack, so a writer must not promise what the
// server's does not keep. net/http has both with HTTP/1 and only Flush with HTTP/2.
type (
	flushWriter  struct{ *writer }
	hijackWriter struct{ *writer }
	bothWriter   struct{ *writer }
)

// Flush implements http.Flusher.
func (w flushWriter) Flush() { _ = w.FlushError() }

// Flush implements http.Flusher.
func (w bothWriter) Flush() { _ = w.FlushError() }

// Hijack implements http.Hijacker.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// Hijack implements http.Hijacker.
func (w bothWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// FlushError is what http.ResponseController looks for.
func (w flushWriter) FlushError() error { return w.flush() }

// FlushError is what http.ResponseController looks for.
func (w bothWriter) FlushError() error { return w.flush() }

func (w *writer) flush() error {
	w.answered()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *writer) hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		w.answered()
	}
	return conn, rw, err
}

func wrap(w http.ResponseWriter, in *call.Inbound, until *handling) http.ResponseWriter {
	inner := &writer{ResponseWriter: w, in: in, until: until}
	_, flushes := w.(http.Flusher)
	_, hijacks := w.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return bothWriter{inner}
	case flushes:
		return flushWriter{inner}
	case hijacks:
		return hijackWriter{inner}
	default:
		return inner
	}
}
