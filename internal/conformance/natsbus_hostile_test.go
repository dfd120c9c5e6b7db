package conformance

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
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

// A stream that was deleted and made again is read from its first message: nothing of it was read before.
func TestReaderOfARecreatedStream(t *testing.T) {
	n := startNATS(t, false)
	nc := n.conn()
	b := newBus(t, nc, natsbus.Config{})
	provision(t, b, "t")
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	send(t, b, messages("t", 10)...)
	done(t, sub, receive(t, sub, 10, 5*time.Second)...)
	require.NoError(t, newJetStream(t, nc).DeleteStream(t.Context(), "t"))
	provision(t, b, "t")
	fresh := messages("t", 13)[10:]
	send(t, b, fresh...)
	got := receive(t, sub, 3, 10*time.Second)
	require.Equal(t, []string{"t-10", "t-11", "t-12"}, ids(got))
	require.Equal(t, messaging.Cursor("1"), got[0].Message.Cursor)
}

// A cursor behind the end of the stream is none of this stream: to wait until it gets there would skip all before.
func TestCursorBehindTheEnd(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	send(t, b, messages("t", 3)...)
	s := spec("t", "")
	s.Start = messaging.After("4")
	_, err := b.Open(t.Context(), s)
	require.ErrorIs(t, err, messaging.ErrInvalid)
	s.Group = "g"
	_, err = b.Open(t.Context(), s)
	require.ErrorIs(t, err, messaging.ErrInvalid)
	s.Start = messaging.After("3")
	closeSub(t, open(t, b, s))
	s.Group = ""
	closeSub(t, open(t, b, s))
}

// A server without replicas comes back without its newest messages, and gives their sequences to others: a reader sees
// those.
func TestReaderOfAStreamThatLostItsEnd(t *testing.T) {
	n := startNATS(t, false)
	b := newBus(t, n.conn(), natsbus.Config{})
	provision(t, b, "t")
	send(t, b, messages("t", 5)...)
	n.stop()
	backup := t.TempDir()
	require.NoError(t, os.CopyFS(backup, os.DirFS(n.opts.StoreDir)))
	n.start()
	sub := open(t, b, spec("t", ""))
	defer closeSub(t, sub)
	send(t, b, messages("t", 10)[5:]...)
	done(t, sub, receive(t, sub, 10, 5*time.Second)...)
	n.stop()
	require.NoError(t, os.RemoveAll(n.opts.StoreDir))
	require.NoError(t, os.CopyFS(n.opts.StoreDir, os.DirFS(backup)))
	n.start()
	require.Empty(t, tryReceive(t, sub, 1, time.Second))
	send(t, b, messages("t", 12)[10:]...)
	require.Equal(t, []string{"t-10", "t-11"}, ids(receive(t, sub, 2, 5*time.Second)))
}
