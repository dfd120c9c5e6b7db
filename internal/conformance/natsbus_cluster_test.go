package conformance

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

// threeServers starts three servers in this process and returns them with their addresses.
func threeServers(t testing.TB) ([]*server.Server, string) {
	t.Helper()
	usedOutside.Store(true)
	const nodes = 3
	var routes []*url.URL
	ports := make([]int, nodes)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ports[i] = l.Addr().(*net.TCPAddr).Port
		defer l.Close() // all are held until all are known
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		require.NoError(t, l.Close())
	}
	servers, addresses := make([]*server.Server, nodes), ""
	for i := range servers {
		opts := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(),
			JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 28, NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
		}
		s, err := server.NewServer(opts)
		require.NoError(t, err)
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers[i] = s
	}
	for i, s := range servers {
		require.True(t, s.ReadyForConnections(10*time.Second))
		if i > 0 {
			addresses += ","
		}
		addresses += s.ClientURL()
	}
	require.Eventually(t, func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				return true
			}
		}
		return false
	}, 20*time.Second, 20*time.Millisecond, "no meta leader")
	return servers, addresses
}

// Leaders step down and the leader's server is shut down while messages flow: nothing that was confirmed is lost.
func TestClusterLeaderChanges(t *testing.T) {
	servers, addresses := threeServers(t)
	connect := func() *nats.Conn {
		nc, err := nats.Connect(addresses, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	nc := connect()
	b := newBus(t, nc, natsbus.Config{Replicas: 3})
	require.Eventually(t, func() bool {
		return b.Provision(t.Context(), messaging.TopicSpec{Name: "t"}) == nil
	}, 20*time.Second, 100*time.Millisecond)

	group, reader := newLog(), newLog()
	run(t, newBus(t, connect(), natsbus.Config{}), "t", group.handle, messaging.ConsumerConfig{Group: "g", Lease: 5 * time.Second})
	run(t, newBus(t, connect(), natsbus.Config{}), "t", reader.handle, messaging.ConsumerConfig{Start: messaging.Earliest()})
	p := newPublisher(t, b)
	var acked atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if err := p.Publish(context.Background(), message("t", fmt.Sprint(i))); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			acked.Add(1)
		}
	})
	for _, what := range []string{"$JS.API.STREAM.LEADER.STEPDOWN.t", "$JS.API.CONSUMER.LEADER.STEPDOWN.t.g"} {
		time.Sleep(300 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := nc.RequestWithContext(ctx, what, nil)
		cancel()
		require.NoError(t, err)
	}
	time.Sleep(500 * time.Millisecond)
	js := newJetStream(t, nc)
	stream, err := js.Stream(t.Context(), "t")
	require.NoError(t, err)
	for _, s := range servers {
		if s.Name() == stream.CachedInfo().Cluster.Leader {
			s.Shutdown()
		}
	}
	before := acked.Load()
	require.Eventually(t, func() bool { return acked.Load() > before+50 }, 30*time.Second, 20*time.Millisecond, "publishing goes on")
	close(stop)
	wg.Wait()
	want := int(acked.Load())
	require.Eventually(t, func() bool { return group.distinct() == want }, 30*time.Second, 20*time.Millisecond, "group: %d of %d", group.distinct(), want)
	require.Eventually(t, func() bool { return reader.distinct() == want }, 30*time.Second, 20*time.Millisecond, "reader: %d of %d", reader.distinct(), want)
	require.Equal(t, want, reader.runs())
}
