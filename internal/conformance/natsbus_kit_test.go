package conformance

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/messagingtest"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

func TestNATSBusContract(t *testing.T) {
	for name, confirm := range map[string]bool{"plain": false, "confirmed acks": true} {
		t.Run(name, func(t *testing.T) {
			messagingtest.Run(t, bubble, func(t *testing.T) messagingtest.Harness {
				n := startNATS(t, true)
				nc := n.conn()
				b := newBus(t, nc, natsbus.Config{Prefix: "kit.", ConfirmAcks: confirm})
				return messagingtest.Harness{
					Sender: b, Subscriber: b,
					Provision: func(t *testing.T, topic string) { provision(t, b, topic) },
					Unknown:   "nowhere",
					Garbage: func(t *testing.T, topic string) {
						_, err := newJetStream(t, nc).PublishMsg(t.Context(), &nats.Msg{
							Subject: "kit." + topic, Header: nats.Header{"ce-specversion": {"7"}, "ce-id": {"%zz"}}, Data: []byte("garbage"),
						})
						require.NoError(t, err)
					},
					Disconnect: func(t *testing.T) { require.NoError(t, nc.ForceReconnect()) },
				}
			})
		})
	}
}

func TestNATSCoreContract(t *testing.T) {
	messagingtest.Run(t, bubble, func(t *testing.T) messagingtest.Harness {
		n := startNATS(t, true)
		nc := n.conn()
		c, err := natsbus.NewCore(nc, natsbus.CoreConfig{Prefix: "kit."})
		require.NoError(t, err)
		return messagingtest.Harness{
			Sender: c, Subscriber: c,
			Garbage: func(t *testing.T, topic string) {
				require.NoError(t, nc.PublishMsg(&nats.Msg{
					Subject: "kit." + topic, Header: nats.Header{"ce-specversion": {"7"}, "ce-id": {"%zz"}}, Data: []byte("garbage"),
				}))
			},
			Disconnect: func(t *testing.T) { require.NoError(t, nc.ForceReconnect()) },
		}
	})
}

// bubble is synctest.Test for what uses nats.go, which keeps the timers of Flush, also that of each reconnect, in a pool
// of the process: one that has been in a bubble kills the process outside of it. Two collections empty the pool.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if usedOutside.Swap(false) {
		emptyPools()
	}
	defer emptyPools()
	synctest.Test(t, f)
}

// usedOutside: a server was started outside of a bubble.
var usedOutside atomic.Bool

func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// flush is Flush without its pool of timers, which does not outlive a bubble.
func flush(t *testing.T, nc *nats.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.NoError(t, nc.FlushWithContext(ctx))
}

// An idle consumer asks twice a minute, and nothing else: an hour in a bubble.
func TestIdleConsumerIsQuiet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := startNATS(t, true)
		b := newBus(t, n.conn(), natsbus.Config{})
		provision(t, b, "t")
		other := n.conn()
		pulls := make(chan *nats.Msg, 10000)
		_, err := other.ChanSubscribe("$JS.API.>", pulls)
		require.NoError(t, err)
		flush(t, other)
		sub := open(t, b, spec("t", "g"))
		for len(pulls) > 0 {
			<-pulls
		}
		require.Empty(t, tryReceive(t, sub, 1, time.Hour))
		asked := 0
		for len(pulls) > 0 {
			if m := <-pulls; strings.HasPrefix(string(m.Data), `{"batch":`) {
				asked++
			}
		}
		require.InDelta(t, 120, asked, 5)
		closeSub(t, sub)
	})
}

// A lease of half an hour, without a second of real time.
func TestLeaseInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := startNATS(t, true)
		b := newBus(t, n.conn(), natsbus.Config{})
		provision(t, b, "t")
		s := spec("t", "g")
		s.Lease = 30 * time.Minute
		sub := open(t, b, s)
		begin := time.Now()
		send(t, b, messages("t", 1)...)
		d := receive(t, sub, 1, time.Minute)[0]
		require.WithinDuration(t, begin.Add(s.Lease), d.Until, time.Second)
		again := receive(t, sub, 1, time.Hour)[0]
		require.Equal(t, 2, again.Message.Attempt)
		require.WithinDuration(t, begin.Add(s.Lease), time.Now(), time.Second)
		require.ErrorIs(t, settle(t, sub, messaging.Done, 0, d)[0].Err, messaging.ErrLeaseLost)
		done(t, sub, again)
		require.Empty(t, tryReceive(t, sub, 1, time.Hour))
		closeSub(t, sub)
	})
}
