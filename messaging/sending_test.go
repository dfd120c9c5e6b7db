package messaging_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// A Sender that fails and names nobody, or somebody who is not there, has not stored what it was given.
func TestAnErrorThatNamesNobodyIsNoSuccess(t *testing.T) {
	for _, f := range [][]messaging.Failure{nil, {{Index: 7, Err: errBroker}}, {{Index: -1, Err: errBroker}}} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: func(int, []*messaging.Message) error { return failed(f...) }}
			err := publisher(t, s, messaging.PublisherConfig{}).Publish(t.Context(), bodies("orders", "a", "b")...)
			pe, is := errors.AsType[*messaging.PublishError](err)
			require.True(t, is)
			require.Len(t, pe.Failed, 2)
			for i, f := range pe.Failed {
				require.Equal(t, i, f.Index)
				require.True(t, f.Unknown)
				require.Error(t, f.Err)
			}
		})
	}
}
