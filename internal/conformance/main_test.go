package conformance

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// TestMain fails when the tests leave goroutines behind.
func TestMain(m *testing.M) {
	// nats-server starts one global clock at first use; in a synctest bubble it would keep the bubble's clock still.
	ats.Register()
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !settled(before, 10*time.Second) {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "goroutines: %d before the tests, %d after\n%s\n", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		code = 1
	}
	ats.Unregister()
	os.Exit(code)
}

// settled reports whether the number of goroutines falls to most within d.
func settled(most int, d time.Duration) bool {
	for end := time.Now().Add(d); runtime.NumGoroutine() > most; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
