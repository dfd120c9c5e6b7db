package natsbus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

var (
	_ messaging.Sender      = (*natsbus.Bus)(nil)
	_ messaging.Subscriber  = (*natsbus.Bus)(nil)
	_ messaging.Provisioner = (*natsbus.Bus)(nil)
	_ messaging.Sender      = (*natsbus.Core)(nil)
	_ messaging.Subscriber  = (*natsbus.Core)(nil)
	_ messaging.Requester   = (*natsbus.Core)(nil)
)

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	_, err := natsbus.New(nil, natsbus.Config{Prefix: "a.*", Domain: "x y", MaxAge: -time.Second})
	for _, want := range []string{"no connection", "Prefix", "Domain", "MaxAge"} {
		require.ErrorContains(t, err, want)
	}
	for _, prefix := range []string{".", "a..b", ">", "a b", "ä", strings.Repeat("a", 51)} {
		_, err := natsbus.New(&nats.Conn{}, natsbus.Config{Prefix: prefix})
		require.Error(t, err, prefix)
		_, err = natsbus.NewCore(&nats.Conn{}, natsbus.CoreConfig{Prefix: prefix})
		require.Error(t, err, prefix)
	}
	_, err = natsbus.New(&nats.Conn{}, natsbus.Config{Prefix: "shop.eu."})
	require.NoError(t, err)
	_, err = natsbus.NewCore(nil, natsbus.CoreConfig{Pending: -1})
	require.ErrorContains(t, err, "Pending")
}

func TestFeaturesSayWhatJetStreamPromises(t *testing.T) {
	b, err := natsbus.New(&nats.Conn{}, natsbus.Config{})
	require.NoError(t, err)
	f := b.Features()
	require.Equal(t, messaging.ConfirmBroker, f.Confirm)
	require.Equal(t, messaging.OrderReader, f.Order, "a plain durable has no order across members")
	require.Zero(t, f.Schedule)
	c, err := natsbus.NewCore(&nats.Conn{}, natsbus.CoreConfig{})
	require.NoError(t, err)
	f = c.Features()
	require.Equal(t, messaging.ConfirmNone, f.Confirm)
	require.False(t, f.Durable)
	require.Equal(t, messaging.AttemptsNone, f.Attempts)
}
