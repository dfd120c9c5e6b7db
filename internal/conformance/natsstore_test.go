package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/natsstore"
)

func natsStore(tb testing.TB, nc *nats.Conn, c natsstore.Config) *natsstore.Store {
	tb.Helper()
	s, err := natsstore.New(nc, "idempotency", c)
	require.NoError(tb, err)
	require.NoError(tb, s.Provision(tb.Context()))
	return s
}

func claimNATS(tb testing.TB, s idempotency.Store, id string) (idempotency.Claim, error) {
	tb.Helper()
	o := idempotency.BeginOptions{Lease: 10 * time.Second, Retain: time.Minute, Fingerprint: []byte("f")}
	return s.Begin(tb.Context(), idempotency.Key{Scope: "orders", ID: id}, o)
}

func TestNATSStoreContract(t *testing.T) {
	idempotencytest.Run(t, idempotencytest.Harness{
		Keys:  2000,
		Slack: 2 * time.Second, // the server counts whole seconds
		New: func(tb testing.TB) idempotency.Store {
			return natsStore(tb, startNATS(tb, true).conn(), natsstore.Config{})
		},
	})
}

// Each step carries the time to live: one that does not makes the record live for ever.
func TestNATSStoreLeavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nc := startNATS(t, true).conn()
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
		js := newJetStream(t, nc)
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
	bubble(t, func(t *testing.T) {
		srv := startNATS(t, true)
		s := natsStore(t, srv.conn(), natsstore.Config{})
		done, err := claimNATS(t, s, "done")
		require.NoError(t, err)
		require.NoError(t, s.Complete(t.Context(), done.Ticket, idempotency.Result{Body: []byte("made")}, time.Hour))
		pending, err := claimNATS(t, s, "pending")
		require.NoError(t, err)
		srv.stop()
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

		srv.start()
		s = natsStore(t, srv.conn(), natsstore.Config{})
		again, err := claimNATS(t, s, "done")
		require.NoError(t, err)
		require.Equal(t, "made", string(again.Result.Body))
		require.NoError(t, s.Complete(t.Context(), pending.Ticket, idempotency.Result{}, time.Hour))
		again, err = claimNATS(t, s, "new")
		require.NoError(t, err)
		require.Equal(t, idempotency.Owned, again.Status, "nothing was sent later")
	})
}

// natsCluster returns stores over one bucket of three replicas, each connected to a server of its own.
func natsCluster(t *testing.T, c natsstore.Config) []*natsstore.Store {
	t.Helper()
	routes := make([]*url.URL, 3)
	for i := range routes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		routes[i] = &url.URL{Scheme: "nats-route", Host: l.Addr().String()}
		require.NoError(t, l.Close())
	}
	c.Replicas = len(routes)
	nodes, stores := make([]*natsServer, len(routes)), make([]*natsstore.Store, len(routes))
	for i, route := range routes {
		port, err := strconv.Atoi(route.Port())
		require.NoError(t, err)
		nodes[i] = &natsServer{t: t, opts: server.Options{
			ServerName: fmt.Sprint("node-", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(),
			NoLog: true, NoSigs: true, Cluster: server.ClusterOpts{Name: "idempotency", Host: "127.0.0.1", Port: port}, Routes: routes,
		}}
		nodes[i].start()
		t.Cleanup(nodes[i].stop)
		stores[i], err = natsstore.New(nodes[i].conn(), "idempotency", c)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(nodes, func(n *natsServer) bool {
			return n.JetStreamIsLeader() && len(n.JetStreamClusterPeers()) == len(nodes)
		})
	}, 20*time.Second, 10*time.Millisecond, "no leader")
	require.NoError(t, stores[0].Provision(t.Context()))
	return stores
}

// A replica is behind the leader, for a moment. Nobody may be told of a state that has passed. In this test it is behind
// for ever, and is us: the server itself does not answer direct gets.
func TestNATSStoreWithAReplicaThatIsBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nc := startNATS(t, true).conn()
		s := natsStore(t, nc, natsstore.Config{})
		js := newJetStream(t, nc)
		stream, err := js.Stream(t.Context(), "KV_idempotency")
		require.NoError(t, err)
		c := stream.CachedInfo().Config
		c.AllowDirect = false
		stream, err = js.UpdateStream(t.Context(), c)
		require.NoError(t, err)
		var first atomic.Pointer[jetstream.RawStreamMsg]
		_, err = nc.Subscribe("$JS.API.DIRECT.GET.KV_idempotency.>", func(m *nats.Msg) {
			old := first.Load()
			_ = m.RespondMsg(&nats.Msg{Data: old.Data, Header: nats.Header{
				"Nats-Sequence": {fmt.Sprint(old.Sequence)}, "Nats-Time-Stamp": {old.Time.Format(time.RFC3339Nano)},
			}})
		})
		require.NoError(t, err)
		for name, test := range map[string]struct {
			change func(idempotency.Ticket) error
			want   idempotency.Status
		}{
			"released": {func(ticket idempotency.Ticket) error { return s.Release(t.Context(), ticket) }, idempotency.Owned},
			"completed": {func(ticket idempotency.Ticket) error {
				return s.Complete(t.Context(), ticket, idempotency.Result{}, time.Hour)
			}, idempotency.Replay},
		} {
			claim, err := claimNATS(t, s, name)
			require.NoError(t, err)
			old, err := stream.GetMsg(t.Context(), claim.Ticket.Fence)
			require.NoError(t, err)
			first.Store(old)
			require.NoError(t, test.change(claim.Ticket))
			claim, err = claimNATS(t, s, name)
			require.NoError(t, err)
			require.Equal(t, test.want, claim.Status, "it was %s", name)
		}
	})
}

func TestNATSStoreOfThreeReplicas(t *testing.T) {
	stores := natsCluster(t, natsstore.Config{})
	for i := range 10 {
		a, b, id := stores[i%3], stores[(i+1)%3], fmt.Sprint(i)
		c, err := claimNATS(t, a, id)
		require.NoError(t, err)
		require.NoError(t, a.Release(t.Context(), c.Ticket))
		c, err = claimNATS(t, b, id)
		require.NoError(t, err)
		require.Equal(t, idempotency.Owned, c.Status)
		ticket, err := a.Extend(t.Context(), c.Ticket, 10*time.Second)
		require.NoError(t, err, "a ticket is no matter of a connection")
		require.NoError(t, b.Complete(t.Context(), ticket, idempotency.Result{Body: []byte(id)}, time.Hour))
		for _, s := range stores {
			c, err = claimNATS(t, s, id)
			require.NoError(t, err)
			require.Equal(t, id, string(c.Result.Body))
		}
	}

	owners := make(chan idempotency.Ticket, 60)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			if c, err := claimNATS(t, stores[i%3], "race"); err != nil {
				t.Error(err)
			} else if c.Status == idempotency.Owned {
				owners <- c.Ticket
			}
		})
	}
	wg.Wait()
	require.Len(t, owners, 1)
}

// A line is a connection to a server whose next answer about a publish can be lost, and the connection with it.
type line struct {
	*natsServer
	cut atomic.Bool
}

func (l *line) InProcessConn() (net.Conn, error) {
	conn, err := l.Server.InProcessConn()
	return &lineConn{conn, l}, err
}

func (l *line) conn(tb testing.TB) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(l), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	require.NoError(tb, err)
	tb.Cleanup(nc.Close)
	return nc
}

type lineConn struct {
	net.Conn
	line *line
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if bytes.Contains(b[:n], []byte(`{"stream":`)) && c.line.cut.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// An answer can be lost after each step. The owner goes on as if it had come.
func TestNATSStoreWhoseAnswerIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &line{natsServer: startNATS(t, true)}
		s := natsStore(t, l.conn(t), natsstore.Config{})

		l.cut.Store(true)
		c, err := claimNATS(t, s, "1")
		require.NoError(t, err)
		require.False(t, l.cut.Load())
		require.Equal(t, idempotency.Owned, c.Status, "the claim is ours")
		require.Equal(t, 1, c.Ticket.Attempt)

		l.cut.Store(true)
		_, err = s.Extend(t.Context(), c.Ticket, 10*time.Second)
		require.Error(t, err)
		require.NotErrorIs(t, err, idempotency.ErrLost)
		ticket, err := s.Extend(t.Context(), c.Ticket, 10*time.Second)
		require.NoError(t, err)

		l.cut.Store(true)
		require.Error(t, s.Complete(t.Context(), ticket, idempotency.Result{Body: []byte("made")}, time.Hour))
		require.NoError(t, s.Complete(t.Context(), ticket, idempotency.Result{Body: []byte("made")}, time.Hour))
		c, err = claimNATS(t, s, "1")
		require.NoError(t, err)
		require.Equal(t, "made", string(c.Result.Body))

		// A caller who has gone does not wait for a second try.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.cut.Store(true)
		began := time.Now()
		_, err = s.Begin(ctx, idempotency.Key{Scope: "orders", ID: "2"}, idempotency.BeginOptions{Lease: time.Second})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
	})
}

// A server may take less in one message than the record of a result needs. That is known before the work is repeated.
func TestNATSStoreOverAServerOfSmallMessages(t *testing.T) {
	for _, most := range []int32{8 << 10, 64 << 10} {
		bubble(t, func(t *testing.T) {
			srv := startNATS(t, true)
			srv.stop()
			srv.opts.MaxPayload = most
			srv.start()
			s := natsStore(t, srv.conn(), natsstore.Config{})
			require.Less(t, s.Promises().MaxBytes, int(most))
			runs := 0
			for _, want := range []error{nil, idempotency.ErrNotKept} {
				_, err := idempotency.Do(t.Context(), s, idempotency.Key{Scope: "a", ID: "b"}, idempotency.Config{}, func(context.Context) ([]byte, error) {
					runs++
					return make([]byte, most-100), nil
				})
				require.ErrorIs(t, err, want)
				time.Sleep(time.Minute)
			}
			require.Equal(t, 1, runs)
			c, err := claimNATS(t, s, "meta")
			require.NoError(t, err)
			r := idempotency.Result{Meta: map[string][]string{"k": {string(bytes.Repeat([]byte{0xff}, s.Promises().MaxBytes))}}}
			require.ErrorIs(t, s.Complete(t.Context(), c.Ticket, r, time.Hour), idempotency.ErrFull, "base64 is longer")
			r.Meta["k"][0] = r.Meta["k"][0][:s.Promises().MaxBytes/2]
			require.NoError(t, s.Complete(t.Context(), c.Ticket, r, time.Hour))
		})
	}
}

// However many duplicates of work under way there are, the server is asked for its time once a second.
func TestNATSStoreAsksForTheTimeOnceASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nc := startNATS(t, true).conn()
		s := natsStore(t, nc, natsstore.Config{})
		_, err := claimNATS(t, s, "1") // for 10 s
		require.NoError(t, err)
		var asked atomic.Int32
		_, err = nc.Subscribe("$JS.API.STREAM.INFO.KV_idempotency", func(*nats.Msg) { asked.Add(1) })
		require.NoError(t, err)
		for i := range 100 {
			c, err := claimNATS(t, s, "1")
			require.NoError(t, err)
			require.Equal(t, idempotency.InFlight, c.Status)
			require.Equal(t, 10*time.Second-time.Duration(i)*99*time.Millisecond, c.RetryAfter)
			time.Sleep(99 * time.Millisecond)
		}
		require.EqualValues(t, 10, asked.Load())
		time.Sleep(100 * time.Millisecond)
		c, err := claimNATS(t, s, "1")
		require.NoError(t, err)
		require.Equal(t, idempotency.Owned, c.Status)
	})
}

// What the package comment says is enough is enough, and nothing more is allowed here.
func TestNATSStorePermissions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := startNATS(t, true)
		srv.stop()
		api := []string{
			"$KV.idempotency.>", "$JS.API.DIRECT.GET.KV_idempotency.>", "$JS.API.STREAM.MSG.GET.KV_idempotency",
			"$JS.API.STREAM.INFO.KV_idempotency",
		}
		may := func(subjects ...string) *server.Permissions {
			return &server.Permissions{
				Publish: &server.SubjectPermission{Allow: subjects}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}
		}
		srv.opts.Users = []*server.User{
			{Username: "deploy", Password: "deploy", Permissions: may("$JS.API.INFO", "$JS.API.STREAM.CREATE.KV_idempotency", api[3])},
			{Username: "service", Password: "service", Permissions: may(api...)},
		}
		srv.start()
		natsStore(t, srv.conn(nats.UserInfo("deploy", "deploy")), natsstore.Config{})
		s, err := natsstore.New(srv.conn(nats.UserInfo("service", "service")), "idempotency", natsstore.Config{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		key, o := idempotency.Key{Scope: "orders", ID: "1"}, idempotency.BeginOptions{Lease: 10 * time.Second, Retain: time.Hour}
		c, err := s.Begin(ctx, key, o)
		require.NoError(t, err)
		duplicate, err := s.Begin(ctx, key, o)
		require.NoError(t, err)
		require.Equal(t, idempotency.InFlight, duplicate.Status)
		_, err = s.Extend(ctx, c.Ticket, 10*time.Second)
		require.NoError(t, err)
		require.NoError(t, s.Complete(ctx, c.Ticket, idempotency.Result{}, time.Hour))
		require.ErrorIs(t, s.Release(ctx, c.Ticket), idempotency.ErrLost)
		duplicate, err = s.Begin(ctx, key, o)
		require.NoError(t, err)
		require.Equal(t, idempotency.Replay, duplicate.Status)
	})
}

// A ticket is good over a restart of the server, on the connection that was there before.
func TestNATSStoreOverARestart(t *testing.T) {
	srv := startNATS(t, false)
	nc := srv.conn()
	s := natsStore(t, nc, natsstore.Config{})
	done, err := claimNATS(t, s, "done")
	require.NoError(t, err)
	require.NoError(t, s.Complete(t.Context(), done.Ticket, idempotency.Result{Body: []byte("made")}, time.Hour))
	pending, err := claimNATS(t, s, "pending")
	require.NoError(t, err)
	released, err := claimNATS(t, s, "released")
	require.NoError(t, err)
	srv.stop()
	srv.start()
	require.Eventually(t, nc.IsConnected, 10*time.Second, 10*time.Millisecond)

	var c idempotency.Claim
	require.Eventually(t, func() bool { c, err = claimNATS(t, s, "done"); return err == nil }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, "made", string(c.Result.Body))
	c, err = claimNATS(t, s, "pending")
	require.NoError(t, err)
	require.Equal(t, idempotency.InFlight, c.Status)
	ticket, err := s.Extend(t.Context(), pending.Ticket, 10*time.Second)
	require.NoError(t, err)
	require.NoError(t, s.Complete(t.Context(), ticket, idempotency.Result{}, time.Hour))
	require.NoError(t, s.Release(t.Context(), released.Ticket))
	c, err = claimNATS(t, s, "released")
	require.NoError(t, err)
	require.Equal(t, idempotency.Owned, c.Status)
	require.Greater(t, c.Ticket.Fence, released.Ticket.Fence)
}

func TestNATSStoreProvision(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nc := startNATS(t, true).conn()
		_, err := newJetStream(t, nc).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{
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

		odd := jetstream.StreamConfig{
			Name: "KV_odd", Subjects: []string{"$KV.odd.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowDirect: true,
			Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, NoAck: true, MaxMsgSize: 1000,
		}
		_, err = newJetStream(t, nc).CreateStream(t.Context(), odd)
		require.NoError(t, err)
		s, err = natsstore.New(nc, "odd", natsstore.Config{})
		require.NoError(t, err)
		err = s.Provision(t.Context())
		for _, difference := range []string{"a second one", "acknowledges nothing", "of 1000 bytes"} {
			require.ErrorContains(t, err, difference)
		}

		s = natsStore(t, nc, natsstore.Config{})
		require.NoError(t, s.Provision(t.Context()), "again")
		missing, err := natsstore.New(nc, "missing", natsstore.Config{})
		require.NoError(t, err)
		_, err = claimNATS(t, missing, "1")
		require.Error(t, err)
	})
}

// A bucket that takes no new key still records what is under way: what is done must not run again for want of room. A
// replicated stream at its limit would take nothing at all.
func TestNATSStoreThatIsFullRefusesNewKeysAlone(t *testing.T) {
	rule := func(t *testing.T, s *natsstore.Store) {
		var tickets []idempotency.Ticket
		var err error
		for err == nil && len(tickets) < 1000 {
			var c idempotency.Claim
			if c, err = claimNATS(t, s, fmt.Sprint(len(tickets))); err == nil {
				tickets = append(tickets, c.Ticket)
			}
		}
		require.ErrorIs(t, err, idempotency.ErrFull)
		for i := range tickets {
			c, err := claimNATS(t, s, fmt.Sprint(i))
			require.NoError(t, err)
			require.Equal(t, idempotency.InFlight, c.Status, "no claim was forgotten")
		}

		for _, ticket := range tickets {
			_, err = s.Extend(t.Context(), ticket, 10*time.Second)
			require.NoError(t, err, "work under way goes on")
		}
		large := idempotency.Result{Body: make([]byte, 1000)}
		kept, refused := 0, 0
		for _, ticket := range tickets[2:] {
			err := s.Complete(t.Context(), ticket, large, time.Hour)
			if err != nil {
				require.ErrorIs(t, err, idempotency.ErrFull)
				require.NoError(t, s.Complete(t.Context(), ticket, idempotency.Result{Kind: idempotency.Tombstone}, time.Hour))
				refused++
				continue
			}
			kept++
		}
		require.Positive(t, kept)
		require.Positive(t, refused)
		require.NoError(t, s.Release(t.Context(), tickets[0]))
		c, err := claimNATS(t, s, "5")
		require.NoError(t, err)
		require.Equal(t, idempotency.Replay, c.Status)
	}
	t.Run("one replica", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			rule(t, natsStore(t, startNATS(t, true).conn(), natsstore.Config{MaxBytes: 60_000}))
		})
	})
	t.Run("three replicas", func(t *testing.T) {
		rule(t, natsCluster(t, natsstore.Config{MaxBytes: 60_000})[0])
	})
}

// What is stored outlives a release: these are records as the first one wrote them, and one of a release to come.
func TestNATSStoreReadsTheFirstRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nc := startNATS(t, true).conn()
		s := natsStore(t, nc, natsstore.Config{})
		store := func(id, record string) {
			sum := idempotency.Key{Scope: "orders", ID: id}.Sum()
			m := &nats.Msg{Subject: "$KV.idempotency." + base64.RawURLEncoding.EncodeToString(sum[:]), Data: []byte(record)}
			_, err := nc.RequestMsgWithContext(t.Context(), m)
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
