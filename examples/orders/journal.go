package main

// How far each order has come, in a bucket of JetStream.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/retry"
)

// A state is how far an order has come.
type state string

const (
	placed    state = "placed"    // stored; whether it was charged is not known
	charged   state = "charged"   // paid; whether it was published is not known
	published state = "published" // done
	declined  state = "declined"  // done, and nothing has happened
)

func (s state) final() bool { return s == published || s == declined }

// A record is what the journal keeps of one order.
type record struct {
	ID     string `json:"id"`
	User   string `json:"user"`
	Card   string `json:"card"`
	Email  string `json:"email"`
	Items  []item `json:"items"`
	State  state  `json:"state"`
	Reason string `json:"reason,omitempty"`

	revision uint64 // of the bucket: what compare-and-set compares
}

// orderID derives the order's id from the shopper's key, so that the same key is the same order, whoever asks and
// however often.
func orderID(user, key string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + key))
	return hex.EncodeToString(sum[:12])
}

// A journal keeps the orders in a JetStream key-value bucket. Each write is a compare-and-set: of two that want to move
// the same order on, one wins, and the other goes on from what it finds. Any number of goroutines may use it at once.
type journal struct {
	kv    jetstream.KeyValue
	retry retry.Policy
	try   time.Duration // bounds one attempt
}

var errNoOrder = errors.New("no such order")

// place stores a new order, or returns the one that is there.
func (j *journal) place(ctx context.Context, r record) (found record, fresh bool, err error) {
	r.State = placed
	value, err := json.Marshal(r)
	if err != nil {
		return r, false, err
	}
	revision, err := attempts(ctx, j, func(ctx context.Context) (uint64, error) {
		return j.kv.Create(ctx, r.ID, value)
	})
	switch {
	case err == nil:
		r.revision = revision
		return r, true, nil
	case conflict(err):
		found, err = j.get(ctx, r.ID)
		return found, false, err
	}
	return r, false, fmt.Errorf("placing order %s: %w", r.ID, err)
}

// move stores r in state s if nobody has moved it since it was read, and returns what then is there; with an error, r as
// it was.
func (j *journal) move(ctx context.Context, r record, s state, reason string) (record, error) {
	next := r
	next.State, next.Reason = s, reason
	value, err := json.Marshal(next)
	if err != nil {
		return r, err
	}
	next.revision, err = attempts(ctx, j, func(ctx context.Context) (uint64, error) {
		return j.kv.Update(ctx, r.ID, value, r.revision)
	})
	switch {
	case err == nil:
		return next, nil
	case conflict(err): // somebody else's, or ours of an attempt whose answer was lost
		var found record
		if found, err = j.get(ctx, r.ID); err == nil {
			return found, nil
		}
	}
	return r, fmt.Errorf("moving order %s to %s: %w", r.ID, s, err)
}

// get returns an order; the error is errNoOrder if there is none.
func (j *journal) get(ctx context.Context, id string) (record, error) {
	e, err := attempts(ctx, j, func(ctx context.Context) (jetstream.KeyValueEntry, error) {
		return j.kv.Get(ctx, id)
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return record{}, errNoOrder
	}
	if err != nil {
		return record{}, fmt.Errorf("reading order %s: %w", id, err)
	}
	return decode(e)
}

// unfinished returns the ids of all orders that are neither published nor declined.
func (j *journal) unfinished(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*j.try)
	defer cancel()
	w, err := j.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var ids []string
	for {
		select {
		case e := <-w.Updates():
			if e == nil { // that was all there is
				return ids, nil
			}
			r, err := decode(e)
			if err != nil {
				return nil, err
			}
			if !r.State.final() {
				ids = append(ids, r.ID)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("reading the journal: %w", context.Cause(ctx))
		}
	}
}

func decode(e jetstream.KeyValueEntry) (record, error) {
	r := record{revision: e.Revision()}
	if err := json.Unmarshal(e.Value(), &r); err != nil {
		return r, fmt.Errorf("journal entry %s: %w", e.Key(), err)
	}
	return r, nil
}

// attempts asks the bucket until it answers: it may be away for a moment. Every operation of the journal may be
// repeated, a compare-and-set because its second attempt is a conflict at worst.
func attempts[T any](ctx context.Context, j *journal, op func(context.Context) (T, error)) (T, error) {
	return retry.DoValue(ctx, j.retry, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, j.try)
		defer cancel()
		v, err := op(ctx)
		if conflict(err) || errors.Is(err, jetstream.ErrKeyNotFound) {
			err = retry.Permanent(err) // an answer, not a failure
		}
		return v, err
	})
}

// conflict reports whether a compare-and-set found another revision than it expected.
func conflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}
