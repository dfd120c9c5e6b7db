package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/retry"
)

// bucket is a journal's bucket that answers as it is told.
type bucket struct {
	jetstream.KeyValue
	writes, reads error
}

func (b bucket) Create(context.Context, string, []byte, ...jetstream.KVCreateOpt) (uint64, error) {
	return 0, b.writes
}

func (b bucket) Update(context.Context, string, []byte, uint64) (uint64, error) { return 0, b.writes }

func (b bucket) Get(context.Context, string) (jetstream.KeyValueEntry, error) { return nil, b.reads }

// The broker goes away between the write that found another revision and the read of it. The order is still this one.
func TestJournalKeepsTheOrderThatItCouldNotRead(t *testing.T) {
	t.Parallel()
	j := &journal{
		kv:    bucket{writes: jetstream.ErrKeyExists, reads: nats.ErrDisconnected},
		retry: retry.Never(),
		try:   time.Second,
	}
	r := record{ID: "1", State: placed, revision: 7}
	got, err := j.move(t.Context(), r, charged, "")
	require.ErrorIs(t, err, nats.ErrDisconnected)
	require.Equal(t, r, got)
}

// Nothing is charged before it is known to be in the journal, and what may be there is taken up again.
func TestNothingIsChargedThatIsNotPlaced(t *testing.T) {
	t.Parallel()
	for _, b := range []bucket{
		{writes: errors.New("no answer")},
		{writes: jetstream.ErrKeyExists, reads: nats.ErrDisconnected},
	} {
		o := &orders{ // no payments: a charge would panic
			journal: &journal{kv: b, retry: retry.Never(), try: time.Second},
			metrics: newMetrics(quiet),
			log:     quiet,
			left:    map[string]string{},
		}
		p := purchaseOf(1, 1, false)
		_, err := o.CreateOrder(t.Context(), p.request.proto(p.user, p.key))
		require.Error(t, err)
		require.Contains(t, o.left, orderID(p.user, p.key))
		require.Len(t, o.left, 1)
	}
}
