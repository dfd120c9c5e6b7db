package conformance_test

import (
	"encoding/base64"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

func inNATSBubble(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	ats.Register()
	defer ats.Unregister()
	dir := t.TempDir() // one of the bubble would be removed before the server has stopped
	synctest.Test(t, func(t *testing.T) { f(t, dir) })
}

func claimNATS(tb testing.TB, s idempotency.Store, id string) (idempotency.Claim, error) {
	tb.Helper()
	o := idempotency.BeginOptions{Lease: 10 * time.Second, Retain: time.Minute, Fingerprint: []byte("f")}
	return s.Begin(tb.Context(), idempotency.Key{Scope: "orders", ID: id}, o)
}

func TestNATSStoreContract(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	dir := t.TempDir()
	idempotencytest.Run(t, idempotencytest.Harness{
		Keys:  2000,
		Slack: 2 * time.Second, // the server counts whole seconds
		New: func(tb testing.TB) idempotency.Store {
			_, nc := bubbleServer(tb, dir+"/"+tb.Name())
			return natsStore(tb, nc, natsstore.Config{})
		},
	})
}

// Each step carries the time to live: one that does not makes the record live for ever.
func TestNATSStoreLeavesNothingBehind(t *testing.T) {
	inNATSBubble(t, func(t *testing.T, dir string) {
		_, nc := bubbleServer(t, dir)
		s := natsStore(t, nc, natsstore.Config{})
		for id, end := range map[string]func(idempotency.Ticket) error{
			"claimed": func(idempotency.Ticket) error { return nil },
			"extended": func(ticket idempotency.Ticket) error {
				_, err := s.Extend(t.Context(), ticket, 20*time.Second)
				return err
			},
			"released": func(ticket idempotency.Ticket) error { return s.Release(t.Context(), ticket) },
			"completed": func(ticket idempotency.Ticket) error {
				return s.Complete(t.Context(), ticket, idempotency.Result{}, time.Hour)
			},
		} {
			c, err := claimNATS(t, s, id)
			require.NoError(t, err)
			require.NoError(t, end(c.Ticket))
		}
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		stored := func() uint64 {
			stream, err := js.Stream(t.Context(), "KV_idempotency")
			require.NoError(t, err)
			return stream.CachedInfo().State.Msgs
		}
		require.EqualValues(t, 4, stored())
		time.Sleep(10 * time.Minute)
		require.EqualValues(t, 1, stored(), "the result alone")
		time.Sleep(time.Hour)
		require.Zero(t, stored())
	})
}

// While the server is away every step is an error, at once; what was kept is there when it comes back.
func TestNATSStoreIsClosedWithoutItsServer(t *testing.T) {
	inNATSBubble(t, func(t *testing.T, dir string) {
		srv, nc := bubbleServer(t, dir)
		s := natsStore(t, nc, natsstore.Config{})
		done, err := claimNATS(t, s, "done")
		require.NoError(t, err)
		require.NoError(t, s.Complete(t.Context(), done.Ticket, idempotency.Result{Body: []byte("made")}, time.Hour))
		pending, err := claimNATS(t, s, "pending")
		require.NoError(t, err)
		srv.Shutdown()
		srv.WaitForShutdown()
		time.Sleep(100 * time.Millisecond)

		began := time.Now()
		_, err = claimNATS(t, s, "new")
		require.Error(t, err)
		_, err = s.Extend(t.Context(), pending.Ticket, 10*time.Second)
		require.Error(t, err)
		require.NotErrorIs(t, err, idempotency.ErrLost)
		require.Error(t, s.Complete(t.Context(), pending.Ticket, idempotency.Result{}, time.Hour))
		require.Error(t, s.Release(t.Context(), pending.Ticket))
		require.Error(t, s.Provision(t.Context()))
		require.Zero(t, time.Since(began))
		nc.Close()

		_, nc = bubbleServer(t, dir)
		s = natsStore(t, nc, natsstore.Config{})
		again, err := claimNATS(t, s, "done")
		require.NoError(t, err)
		require.Equal(t, "made", string(again.Result.Body))
		require.NoError(t, s.Complete(t.Context(), pending.Ticket, idempotency.Result{}, time.Hour))
		again, err = claimNATS(t, s, "new")
		require.NoError(t, err)
		require.Equal(t, idempotency.Owned, again.Status, "nothing was sent later")
	})
}

func TestNATSStoreProvision(t *testing.T) {
	inNATSBubble(t, func(t *testing.T, dir string) {
		_, nc := bubbleServer(t, dir)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		_, err = js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{
			Bucket: "foreign", History: 5, TTL: time.Hour, Storage: jetstream.MemoryStorage,
		})
		require.NoError(t, err)
		s, err := natsstore.New(nc, "foreign", natsstore.Config{MaxBytes: 1 << 20})
		require.NoError(t, err)
		err = s.Provision(t.Context())
		for _, difference := range []string{"history is 5", "TTL is 1h", "storage is Memory", "per-message TTL", "holds -1 bytes"} {
			require.ErrorContains(t, err, difference)
		}
		_, err = claimNATS(t, s, "1")
		require.Error(t, err, "a bucket without per-message TTL takes no record")

		s = natsStore(t, nc, natsstore.Config{})
		require.NoError(t, s.Provision(t.Context()), "again")
		missing, err := natsstore.New(nc, "missing", natsstore.Config{})
		require.NoError(t, err)
		_, err = claimNATS(t, missing, "1")
		require.Error(t, err)
	})
}

func TestNATSStoreThatIsFullRefuses(t *testing.T) {
	inNATSBubble(t, func(t *testing.T, dir string) {
		_, nc := bubbleServer(t, dir)
		s := natsStore(t, nc, natsstore.Config{MaxBytes: 20_000})
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = claimNATS(t, s, fmt.Sprint(n))
		}
		require.ErrorIs(t, err, idempotency.ErrFull)
		for i := range n - 1 {
			c, err := claimNATS(t, s, fmt.Sprint(i))
			if err != nil {
				require.ErrorIs(t, err, idempotency.ErrFull)
				continue
			}
			require.Equal(t, idempotency.InFlight, c.Status, "no claim was forgotten")
		}
	})
}

// What is stored outlives a release: these are records as the first one wrote them, and one of a release to come.
func TestNATSStoreReadsTheFirstRelease(t *testing.T) {
	inNATSBubble(t, func(t *testing.T, dir string) {
		_, nc := bubbleServer(t, dir)
		s := natsStore(t, nc, natsstore.Config{})
		store := func(id, record string) {
			sum := idempotency.Key{Scope: "orders", ID: id}.Sum()
			m := &nats.Msg{Subject: "$KV.idempotency." + base64.RawURLEncoding.EncodeToString(sum[:]), Data: []byte(record)}
			_, err := nc.RequestMsg(m, time.Second)
			require.NoError(t, err)
		}
		store("done", `{"v":1,"state":"done","scope":"orders","id":"done","token":"T","fence":3,"attempt":2,"print":"Zg==","kind":2,"meta":{"a":["b","c"]}}`+"\nno\nsuch order")
		c, err := claimNATS(t, s, "done")
		require.NoError(t, err)
		require.Equal(t, idempotency.Replay, c.Status)
		require.Equal(t, idempotency.Failed, c.Result.Kind)
		require.Equal(t, map[string][]string{"a": {"b", "c"}}, c.Result.Meta)
		require.Equal(t, "no\nsuch order", string(c.Result.Body))

		store("claimed", `{"v":1,"state":"claimed","scope":"orders","id":"claimed","token":"T","attempt":4,"print":"Zg==","lease_ns":5000000000,"retain_ns":60000000000}`+"\n")
		c, err = claimNATS(t, s, "claimed")
		require.NoError(t, err)
		require.Equal(t, idempotency.InFlight, c.Status)
		time.Sleep(5 * time.Second)
		c, err = claimNATS(t, s, "claimed")
		require.NoError(t, err)
		require.Equal(t, idempotency.Owned, c.Status)
		require.Equal(t, 5, c.Ticket.Attempt)

		store("newer", `{"v":2,"state":"done"}`+"\n")
		_, err = claimNATS(t, s, "newer")
		require.ErrorContains(t, err, "version 2", "what cannot be read is not absent")
	})
}
