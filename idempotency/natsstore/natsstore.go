package natsstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/idempotency"
)

const (
	minLease = time.Second
	tries    = 8
	// headroom of a message for what is not the result: the line of JSON and the headers.
	headroom = 32 << 10
)

// Config configures a Store. The zero Config is right in production.
type Config struct {
	// MaxBytes of the bucket, given to Provision. Begin refuses new keys when seven eighths of it are taken, and Complete
	// results at fifteen sixteenths: the rest is for recording what is under way, so each Store over a bucket with a
	// limit should have it. Zero: no limit, or none that is looked after.
	MaxBytes int64
	Replicas int // of the bucket, given to Provision. Zero: 1
}

// A Store is an idempotency.Store over one bucket. Any number of goroutines may use it at once, and any number of
// processes may share the bucket. It never closes the connection and starts no goroutine.
type Store struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	bucket string
	stream string
	config Config
	seen   atomic.Pointer[glance] // the last one
	wrote  atomic.Int64           // bytes, since New
}

var _ idempotency.Store = (*Store)(nil)

// New returns a Store over the bucket of that name, which Provision declares. The error joins every fault of the
// arguments. It does no I/O.
func New(nc *nats.Conn, bucket string, c Config) (*Store, error) {
	var faults []error
	if nc == nil {
		faults = append(faults, errors.New("natsstore: no connection"))
	}
	if !validBucket(bucket) {
		faults = append(faults, fmt.Errorf("natsstore: bucket %q is not made of letters, digits, _ and -", bucket))
	}
	if c.MaxBytes < 0 {
		faults = append(faults, fmt.Errorf("natsstore: MaxBytes %d is negative", c.MaxBytes))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		faults = append(faults, fmt.Errorf("natsstore: Replicas %d is not between 0 and 5", c.Replicas))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("natsstore: %w", err)
	}
	return &Store{nc: nc, js: js, bucket: bucket, stream: "KV_" + bucket, config: c}, nil
}

func validBucket(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return name != ""
}

// Promises implements idempotency.Store. MaxBytes follows the server's limit of a message.
func (s *Store) Promises() idempotency.Promises {
	most := s.maxMessage()
	return idempotency.Promises{
		LateComplete: true, Park: true, MinLease: minLease, MaxBytes: most - min(headroom, most/2), Durable: true,
	}
}

func (s *Store) maxMessage() int {
	if n := s.nc.MaxPayload(); n > 0 {
		return int(n)
	}
	return 1 << 20 // not known before the first connection; the server's default
}

// Begin implements idempotency.Store. It publishes first and reads only when somebody was there: new keys are many,
// duplicates are few.
func (s *Store) Begin(ctx context.Context, k idempotency.Key, o idempotency.BeginOptions) (idempotency.Claim, error) {
	if err := errors.Join(k.Validate(), o.Validate(s.Promises())); err != nil {
		return idempotency.Claim{}, err
	}
	full, err := s.reserved(ctx, 8)
	if err != nil {
		return idempotency.Claim{}, err
	}
	subject, first := s.subject(k), claim(k, o)
	mine, expect, again := first, uint64(0), false
	for try := range tries {
		if try > 1 {
			pause(ctx, time.Duration(try)*2*time.Millisecond) // a replica that lags behind catches up
		}
		if !full || expect > 0 {
			revision, err := s.put(ctx, subject, mine, expect)
			switch {
			case err == nil:
				return owned(k, mine, revision)
			case conflict(err):
			case unanswered(ctx, err) && !again:
				again = true // if it was stored, the next one is a conflict with ourselves
				continue
			default:
				return idempotency.Claim{}, err
			}
		}
		e, c, err := s.read(ctx, subject, o, try > 0)
		switch {
		case err != nil:
			return idempotency.Claim{}, err
		case e.present && e.record.Token == mine.Token:
			return owned(k, mine, e.revision) // the answer to an earlier publish was lost
		case c.Status != idempotency.Owned:
			return c, nil
		case full && !e.present:
			return idempotency.Claim{}, fmt.Errorf("natsstore: %w: seven eighths of %d bytes", idempotency.ErrFull, s.config.MaxBytes)
		}
		expect, mine = e.revision, first.after(e)
	}
	// Whoever changes the record all the time is at it.
	return idempotency.Claim{Status: idempotency.InFlight, RetryAfter: minLease}, nil
}

func owned(k idempotency.Key, r record, revision uint64) (idempotency.Claim, error) {
	r.Fence = revision // the stream's sequence: it grows for ever, whatever becomes of the record
	t, err := token(revision, r)
	return idempotency.Claim{Ticket: idempotency.Ticket{Key: k, Fence: revision, Attempt: r.Attempt, Token: t}}, err
}

// read returns what stands at a key and what that means for a Begin. Any replica may say that work is done: it stays
// done. Everything else is for the leader to say: a replica that is behind sees claims that have been completed or
// released.
func (s *Store) read(ctx context.Context, subject string, o idempotency.BeginOptions, leader bool) (entry, idempotency.Claim, error) {
	if !leader {
		e, err := s.last(ctx, subject)
		if err != nil || e.present && e.record.State == stateDone && !e.record.mismatch(o.Fingerprint) {
			return e, idempotency.Claim{Status: idempotency.Replay, Result: e.record.result(e.at)}, err
		}
	}
	e, err := s.lastOfLeader(ctx, subject)
	if err != nil {
		return entry{}, idempotency.Claim{}, err
	}
	c, err := s.judge(ctx, e, o)
	return e, c, err
}

// judge says what e means for a Begin. Owned means that the key can be claimed at e's revision.
func (s *Store) judge(ctx context.Context, e entry, o idempotency.BeginOptions) (idempotency.Claim, error) {
	r := e.record
	switch {
	case !e.present:
		return idempotency.Claim{}, nil
	case r.mismatch(o.Fingerprint):
		return idempotency.Claim{Status: idempotency.Mismatch}, nil
	case r.State == stateDone:
		return idempotency.Claim{Status: idempotency.Replay, Result: r.result(e.at)}, nil
	}
	now, err := s.now(ctx)
	if err != nil {
		return idempotency.Claim{}, err
	}
	if left := r.Lease - now.Sub(e.at); left > 0 {
		return idempotency.Claim{Status: idempotency.InFlight, RetryAfter: min(left, r.Lease)}, nil
	}
	if o.Park {
		return idempotency.Claim{Status: idempotency.Unknown}, nil
	}
	return idempotency.Claim{}, nil
}

// Extend implements idempotency.Store.
func (s *Store) Extend(ctx context.Context, t idempotency.Ticket, lease time.Duration) (idempotency.Ticket, error) {
	if lease < minLease {
		return t, fmt.Errorf("natsstore: lease %v, at least %v", lease, minLease)
	}
	revision, mine, err := parseToken(t.Token)
	if err != nil {
		return t, err
	}
	mine.Lease = lease
	revision, done, err := s.step(ctx, t.Key, revision, mine, func(expect uint64) (uint64, error) {
		return s.put(ctx, s.subject(t.Key), mine, expect)
	})
	if err == nil && done {
		err = idempotency.ErrLost
	}
	if err != nil {
		return t, err
	}
	t.Token, err = token(revision, mine)
	return t, err
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, t idempotency.Ticket, r idempotency.Result, retain time.Duration) error {
	if retain <= 0 {
		return fmt.Errorf("natsstore: retain %v is not positive", retain)
	}
	if n, most := r.Size(), s.Promises().MaxBytes; n > most {
		return fmt.Errorf("natsstore: %w: result of %d bytes, at most %d", idempotency.ErrFull, n, most)
	}
	if full, err := s.reserved(ctx, 16); err == nil && full && r.Size() > 0 {
		return fmt.Errorf("natsstore: %w: fifteen sixteenths of %d bytes", idempotency.ErrFull, s.config.MaxBytes)
	}
	revision, mine, err := parseToken(t.Token)
	if err != nil {
		return err
	}
	final := mine.done(r)
	_, _, err = s.step(ctx, t.Key, revision, mine, func(expect uint64) (uint64, error) {
		return s.putFor(ctx, s.subject(t.Key), final, expect, wholeSeconds(retain))
	})
	return err
}

// Release implements idempotency.Store. It leaves a marker for a second, then nothing.
func (s *Store) Release(ctx context.Context, t idempotency.Ticket) error {
	revision, mine, err := parseToken(t.Token)
	if err != nil {
		return err
	}
	_, done, err := s.step(ctx, t.Key, revision, mine, func(expect uint64) (uint64, error) {
		m := &nats.Msg{Subject: s.subject(t.Key), Header: nats.Header{kvOperation: {"DEL"}}}
		return s.publish(ctx, m, expect, time.Second)
	})
	if err == nil && done {
		return idempotency.ErrLost
	}
	return err
}

// step changes the record of an owner by compare-and-set. A conflict is not yet a loss: the owner may have moved the
// revision itself, by a heartbeat whose answer was lost. done reports that the owner has completed before.
func (s *Store) step(ctx context.Context, k idempotency.Key, expect uint64, mine record, change func(expect uint64) (uint64, error)) (revision uint64, done bool, err error) {
	for try := range tries {
		if try > 1 {
			pause(ctx, time.Duration(try)*2*time.Millisecond)
		}
		if revision, err = change(expect); err == nil || !conflict(err) {
			return revision, false, err
		}
		e, failed := s.lastOfLeader(ctx, s.subject(k))
		switch {
		case failed != nil:
			return 0, false, failed
		case !e.present || e.record.Token != mine.Token:
			return 0, false, idempotency.ErrLost
		case e.record.State == stateDone:
			return e.revision, true, nil
		}
		expect = e.revision
	}
	return 0, false, err
}

// subject is the key's own. Keys are any bytes and subjects are not, so it is a hash; see idempotency.Key.Sum.
func (s *Store) subject(k idempotency.Key) string {
	sum := k.Sum()
	return "$KV." + s.bucket + "." + base64.RawURLEncoding.EncodeToString(sum[:])
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
