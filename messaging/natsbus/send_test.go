package natsbus

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// What the server refuses says whether another try can help, and whether the message may be stored after all.
func TestAnswersOfTheStream(t *testing.T) {
	for _, c := range []struct {
		name, body         string
		permanent, unknown bool
	}{
		{"full", `{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`, false, false},
		{"no room on disk", `{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`, false, false},
		{"no leader", `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`, false, false},
		{"too large for the stream", `{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}`, true, false},
		{"first try still under way", `{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFlight(&Bus{replies: newReplies(nil)}, []*messaging.Message{{Topic: "t"}})
			f.b.replies.room <- struct{}{}
			f.sent[0], f.open = true, 1
			f.answered(0, &nats.Msg{Data: []byte(c.body)})
			require.Zero(t, f.open)
			pe, ok := errors.AsType[*messaging.PublishError](f.error())
			require.True(t, ok)
			require.Len(t, pe.Failed, 1)
			require.Equal(t, c.unknown, pe.Failed[0].Unknown)
			require.Equal(t, c.permanent, isPermanent(pe.Failed[0].Err))
		})
	}
}
