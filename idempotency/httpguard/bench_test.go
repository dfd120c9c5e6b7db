package httpguard_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

type nothing struct{ header http.Header }

func (n nothing) Header() http.Header         { return n.header }
func (n nothing) Write(b []byte) (int, error) { return len(b), nil }
func (n nothing) WriteHeader(int)             {}

func BenchmarkGuard(b *testing.B) {
	payload := strings.Repeat("x", 256)
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, payload)
	}
	for name, key := range map[string]func(int) string{
		"first":  func(i int) string { return "first-" + strconv.Itoa(b.N) + "-" + strconv.Itoa(i) },
		"replay": func(int) string { return "replay" },
		"bare":   nil,
	} {
		b.Run(name, func(b *testing.B) {
			s := newSite(b, handler)
			r := httptest.NewRequest(http.MethodPost, "/orders", nil)
			b.ReportAllocs()
			for i := range b.N {
				r.Body = io.NopCloser(strings.NewReader(payload))
				w := nothing{make(http.Header)}
				if key == nil {
					handler(w, r)
					continue
				}
				r.Header["Idempotency-Key"] = []string{key(i)}
				s.serve(w, r)
			}
		})
	}
}
