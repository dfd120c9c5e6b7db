package conformance_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/natsstore"
)

// bubbleServer starts a server without a listener. It can live in a bubble once ats.Register was called outside of it.
func bubbleServer(tb testing.TB, dir string) (*server.Server, *nats.Conn) {
	tb.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	require.NoError(tb, err)
	srv.Start()
	require.True(tb, srv.ReadyForConnections(10*time.Second))
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	require.NoError(tb, err)
	tb.Cleanup(func() {
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv, nc
}

func natsStore(tb testing.TB, nc *nats.Conn, c natsstore.Config) *natsstore.Store {
	tb.Helper()
	s, err := natsstore.New(nc, "idempotency", c)
	require.NoError(tb, err)
	require.NoError(tb, s.Provision(tb.Context()))
	return s
}

func inNATSBubble(t *testing.T, f func(t *testing.T, nc *nats.Conn)) {
	t.Helper()
	ats.Register()
	defer ats.Unregister()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, nc := bubbleServer(t, dir)
		f(t, nc)
	})
}

func TestNATSStoreContract(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	dir := t.TempDir() // the bubble's own would be removed before the server has stopped
	idempotencytest.Run(t, idempotencytest.Harness{
		Keys:     2000,
		Claimers: 64,
		Slack:    2 * time.Second, // the server counts whole seconds
		New: func(tb testing.TB) idempotency.Store {
			_, nc := bubbleServer(tb, dir+"/"+tb.Name())
			return natsStore(tb, nc, natsstore.Config{})
		},
	})
}
