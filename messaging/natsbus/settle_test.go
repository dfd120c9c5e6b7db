package natsbus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// What the server is told must not change: a delay is a whole number of nanoseconds.
func TestVerdictGolden(t *testing.T) {
	for want, e := range map[string]messaging.Settlement{
		"+ACK":                               {Action: messaging.Done},
		"+TERM":                              {Action: messaging.Refuse},
		"+WPI":                               {Action: messaging.Extend},
		"-NAK":                               {Action: messaging.Release, Delay: -1},
		`-NAK {"delay":1}`:                   {Action: messaging.Retry, Delay: 1},
		`-NAK {"delay":9223372036854775807}`: {Action: messaging.Retry, Delay: 1<<63 - 1},
		`-NAK {"delay":86400000000000}`:      {Action: messaging.Release, Delay: 24 * time.Hour},
	} {
		got, err := verdict(e)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err := verdict(messaging.Settlement{Action: 99})
	require.ErrorIs(t, err, messaging.ErrUnsupported)
}
