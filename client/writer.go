package client

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"github.com/tandemgo/tandem/internal/call"
)

// A writer adds Tandem-Retry to a refusal, at the last moment at which a header can be added.
type writer struct {
	http.ResponseWriter
	in    *call.Inbound
	wrote bool // the final header
}

// WriteHeader implements http.ResponseWriter. A handler that writes without it answers 200, which is no refusal.
func (w *writer) WriteHeader(status int) {
	if !w.wrote && status >= 200 { // 1xx may come many times, before the final one
		w.wrote = true
		if refusal := status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout; refusal && w.in.GaveUp() {
			w.Header().Set(call.HeaderRetry, call.RetryNo)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	w.wrote = true
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom implements io.ReaderFrom, so that a file still goes to the socket without a copy.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.wrote = true
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
	w.wrote = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *writer) hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func wrap(w http.ResponseWriter, in *call.Inbound) http.ResponseWriter {
	inner := &writer{ResponseWriter: w, in: in}
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
