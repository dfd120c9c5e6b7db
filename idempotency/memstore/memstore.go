package memstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

// Config configures a Store. The zero Config is right for one process.
type Config struct {
	// MaxKeys bounds the records. Each takes some 200 bytes beside MaxBytes, which are used again but not given back to
	// the system. Zero: 1 << 20
	MaxKeys int
	// MaxBytes bounds the keys, fingerprints and results. Zero: 256 MiB
	MaxBytes int64
}

// A Store is an idempotency.Store. Any number of goroutines may use it at once. It starts no goroutine; what has
// expired is removed in passing. The zero Store is not usable.
type Store struct {
	maxKeys  int64
	maxBytes int64
	base     time.Time // its monotonic reading is where the store's time begins
	seed     maphash.Seed
	shards   [shards]shard
	keys     atomic.Int64
	bytes    atomic.Int64
}

var _ idempotency.Store = (*Store)(nil)

// New returns an empty Store. The error joins every fault of the Config.
func New(c Config) (*Store, error) {
	var faults []error
	if c.MaxKeys < 0 || c.MaxKeys > math.MaxInt32 {
		faults = append(faults, fmt.Errorf("memstore: MaxKeys %d is not between 0 and %d", c.MaxKeys, math.MaxInt32))
	}
	if c.MaxBytes < 0 {
		faults = append(faults, fmt.Errorf("memstore: MaxBytes %d is negative", c.MaxBytes))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s := &Store{maxKeys: int64(c.MaxKeys), maxBytes: c.MaxBytes, base: time.Now(), seed: maphash.MakeSeed()}
	if s.maxKeys == 0 {
		s.maxKeys = 1 << 20
	}
	if s.maxBytes == 0 {
		s.maxBytes = 256 << 20
	}
	for i := range s.shards {
		s.shards[i].init(s, uint64(s.base.UnixMicro()))
	}
	return s, nil
}

// Promises implements idempotency.Store.
func (s *Store) Promises() idempotency.Promises {
	return idempotency.Promises{
		LateComplete: true, Park: true, MaxBytes: int(min(s.maxBytes, math.MaxInt32)),
	}
}

// Begin implements idempotency.Store.
func (s *Store) Begin(ctx context.Context, k idempotency.Key, o idempotency.BeginOptions) (idempotency.Claim, error) {
	if err := errors.Join(k.Validate(), o.Validate(s.Promises())); err != nil {
		return idempotency.Claim{}, err
	}
	if err := ctx.Err(); err != nil {
		return idempotency.Claim{}, context.Cause(ctx)
	}
	sh, hash := s.locate(k)
	claim, full := sh.begin(hash, k, o, s.now())
	if !full {
		return claim, nil
	}
	s.sweep()
	if claim, full = sh.begin(hash, k, o, s.now()); full {
		return idempotency.Claim{}, fmt.Errorf("memstore: %w: %d keys, %d bytes", idempotency.ErrFull, s.keys.Load(), s.bytes.Load())
	}
	return claim, nil
}

// Extend implements idempotency.Store.
func (s *Store) Extend(ctx context.Context, t idempotency.Ticket, lease time.Duration) (idempotency.Ticket, error) {
	if lease <= 0 {
		return t, fmt.Errorf("memstore: lease %v is not positive", lease)
	}
	if err := ctx.Err(); err != nil {
		return t, context.Cause(ctx)
	}
	sh, hash := s.locate(t.Key)
	return t, sh.extend(hash, t, lease, s.now())
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, t idempotency.Ticket, r idempotency.Result, retain time.Duration) error {
	if retain <= 0 {
		return fmt.Errorf("memstore: retain %v is not positive", retain)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	sh, hash := s.locate(t.Key)
	err := sh.complete(hash, t, r, retain, s.now())
	if errors.Is(err, idempotency.ErrFull) {
		s.sweep()
		err = sh.complete(hash, t, r, retain, s.now())
	}
	return err
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, t idempotency.Ticket) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	sh, hash := s.locate(t.Key)
	return sh.release(hash, t, s.now())
}

func (s *Store) locate(k idempotency.Key) (*shard, uint64) {
	hash := maphash.Comparable(s.seed, k)
	return &s.shards[hash%shards], hash
}

// now is the store's time: what has passed since it was made.
func (s *Store) now() time.Duration { return time.Since(s.base) }

// sweep is called before anybody is refused: somebody else's records may have expired. Every shard is asked, one at a
// time and only if it has something to give.
func (s *Store) sweep() {
	for i := range s.shards {
		s.shards[i].sweep(s.now())
	}
}

// room takes n bytes and one record more or fewer, unless there is no room. Giving back always succeeds.
func (s *Store) room(records, n int64) bool {
	if !take(&s.bytes, n, s.maxBytes) {
		return false
	}
	if !take(&s.keys, records, s.maxKeys) {
		s.bytes.Add(-n)
		return false
	}
	return true
}

// take adds n where that leaves at most most. What does not fit is never in the sum: a result that is too large must not
// have another one refused beside it.
func take(sum *atomic.Int64, n, most int64) bool {
	for {
		old := sum.Load()
		if n > 0 && n > most-old {
			return false
		}
		if n == 0 || sum.CompareAndSwap(old, old+n) {
			return true
		}
	}
}

// add saturates: a retention of centuries must not become one of the past.
func add(t, d time.Duration) time.Duration {
	if d > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + d
}
