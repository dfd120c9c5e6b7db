package conformance

import (
	"testing"
	"time"


	"github.com/tandemgo/tandem/messaging/natsbus"
)

// Deliveries that nobody settles hold their bytes no longer than their lease.
func TestBytesOfLostLeasesAreFree(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	s := spec("t", "g")
	s.Lease, s.MaxBytes = 500*time.Millisecond, 1<<20
	sub := open(t, b, s)
	defer closeSub(t, sub)
	m := messages("t", 2)
	m[0].Body, m[1].Body = make([]byte, 1<<20-2000), make([]byte, 1<<20-2000)
	send(t, b, m...)
	receive(t, sub, 1, 5*time.Second) // and never settled
	again := receive(t, sub, 1, 5*time.Second)
	done(t, sub, again...)
}
