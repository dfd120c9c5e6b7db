package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A Store keeps one record per Key. Each method is one atomic operation of the store, however many goroutines and
// processes call it at once. The store's clock decides about leases and retention, never that of a caller.
//
// A Store copies what it keeps and what it returns. Its methods return promptly when their context ends. Any error but
// ErrLost leaves open whether the operation happened: callers treat it as the worse of both.
type Store interface {
	// Begin claims k, or says why it cannot be claimed, with what is known. A fingerprint other than that of the record
	// is Mismatch in every state. ErrFull: a bounded store refuses; it never forgets a claim or a result instead.
	Begin(ctx context.Context, k Key, o BeginOptions) (Claim, error)
	// Extend starts the lease anew and returns the Ticket to go on with. The old one still serves, since the answer may be
	// lost. It succeeds after the lease has passed if nobody took over and Promises.LateComplete holds. ErrLost: somebody
	// else has the claim, or nobody.
	Extend(ctx context.Context, t Ticket, lease time.Duration) (Ticket, error)
	// Complete keeps r for retain. ErrLost: the claim was taken over or is gone, and what is stored stays. ErrFull: r
	// has no room; a Tombstone may have. A second Complete with the same Ticket is nil and changes nothing, because the
	// answer to the first may have been lost.
	Complete(ctx context.Context, t Ticket, r Result, retain time.Duration) error
	// Release gives the claim up without a result: the next Begin owns it. ErrLost as above, also after Complete.
	Release(ctx context.Context, t Ticket) error
	// Promises says what this store keeps to. It does no I/O.
	Promises() Promises
}

// Promises is what a Store really keeps to; package idempotencytest asserts both sides.
type Promises struct {
	// LateComplete: Complete and Extend succeed after the lease has passed, for as long as BeginOptions.Retain, if nobody
	// took over. Where not, they are ErrLost.
	LateComplete bool
	// Park: BeginOptions.Park is honoured, for as long as BeginOptions.Retain; where not, Begin with it is an error.
	Park bool
	// MinLease: shorter leases are refused.
	MinLease time.Duration
	// MaxBytes is the largest Result, Meta included; larger ones are ErrFull. Zero: no limit.
	MaxBytes int
	// Durable: records survive the process.
	Durable bool
}

const (
	maxKey         = 2048 // Scope and ID each
	maxFingerprint = 64
)

// A Key names one operation. Both parts are mandatory, any bytes, at most 2048 each. Scope keeps apart what must not
// meet: tenants, routes, consumers. Events carry the scope, never the ID.
type Key struct{ Scope, ID string }

// Validate returns an error that matches ErrInvalidKey unless k can be used. Stores call it in Begin.
func (k Key) Validate() error {
	for _, part := range [...]struct{ name, value string }{{"scope", k.Scope}, {"id", k.ID}} {
		switch {
		case part.value == "":
			return fmt.Errorf("%w: empty %s", ErrInvalidKey, part.name)
		case len(part.value) > maxKey:
			return fmt.Errorf("%w: %s of %d bytes, at most %d", ErrInvalidKey, part.name, len(part.value), maxKey)
		}
	}
	return nil
}

// Sum is the identity of k in stores that want one of fixed size and harmless bytes: the SHA-256 of both parts, each
// behind its length, so that no two keys meet by concatenation. It never changes.
func (k Key) Sum() [sha256.Size]byte {
	b := make([]byte, 0, 2*binary.MaxVarintLen64+len(k.Scope)+len(k.ID))
	b = binary.AppendUvarint(b, uint64(len(k.Scope)))
	b = append(b, k.Scope...)
	b = binary.AppendUvarint(b, uint64(len(k.ID)))
	b = append(b, k.ID...)
	return sha256.Sum256(b)
}

// BeginOptions are the options of Begin.
type BeginOptions struct {
	// Fingerprint of the request, at most 64 bytes. It stays with the record for life. Empty, here or in the record: not
	// compared.
	Fingerprint []byte
	// Lease must be positive. The claim is live before Lease has passed, and can be taken over from then on.
	Lease time.Duration
	// Retain is how long the record outlives its lease, so that a takeover is known as one. Zero: not at all.
	Retain time.Duration
	// Park answers Unknown instead of Owned when an earlier owner lost its lease: the effect may have happened.
	Park bool
}

// Validate reports every fault of o that a store with promises p refuses. Stores call it in Begin.
func (o BeginOptions) Validate(p Promises) error {
	var faults []error
	switch { // no helper: what it would be called with costs every claim an allocation
	case o.Lease <= 0:
		faults = append(faults, fmt.Errorf("idempotency: Lease %v is not positive", o.Lease))
	case o.Lease < p.MinLease:
		faults = append(faults, fmt.Errorf("idempotency: Lease %v, this store needs %v", o.Lease, p.MinLease))
	}
	if o.Retain < 0 {
		faults = append(faults, fmt.Errorf("idempotency: Retain %v is negative", o.Retain))
	}
	if n := len(o.Fingerprint); n > maxFingerprint {
		faults = append(faults, fmt.Errorf("idempotency: Fingerprint of %d bytes, at most %d", n, maxFingerprint))
	}
	if o.Park && !p.Park {
		faults = append(faults, errors.New("idempotency: this store cannot Park"))
	}
	return errors.Join(faults...)
}

// A Claim is the answer of Begin.
type Claim struct {
	Status Status
	Ticket Ticket // with Owned
	Result Result // with Replay
	// RetryAfter, with InFlight, is when the other owner's lease would end.
	RetryAfter time.Duration
}

// Status is the status of a Claim.
type Status int

// The statuses.
const (
	Owned    Status = iota // do it
	Replay                 // it was done; here is the result
	InFlight               // somebody is at it
	Mismatch               // the key was used for something else
	Unknown                // an owner vanished in the middle, and Park forbids to run again
)

func (s Status) String() string {
	return name(int(s), "owned", "replay", "in flight", "mismatch", "unknown")
}

// A Ticket is the right to finish what Begin gave. It is plain data and may be copied.
type Ticket struct {
	Key Key
	// Fence grows with every owner of the key, also after a Release; hand it to what can compare it.
	Fence uint64
	// Attempt is 1, and one more for each owner in a row before this one that lost its lease.
	Attempt int
	// Token is the store's own: what it compares, and what else it wants back. Secret.
	Token string
}

// A Result is what Complete keeps.
type Result struct {
	Kind Kind
	Meta map[string][]string
	Body []byte
	At   time.Time // when it was completed; set by the store
}

// Size is what counts against Promises.MaxBytes.
func (r Result) Size() int {
	n := len(r.Body)
	for k, vs := range r.Meta {
		n += len(k)
		for _, v := range vs {
			n += len(v)
		}
	}
	return n
}

// Kind is the kind of a Result. The numbers are stored and never change.
type Kind int

// The kinds.
const (
	Value     Kind = iota // Body is the answer
	Tombstone             // done, but the answer could not be kept
	Failed                // done, and the answer is a failure that would happen again
)

func (k Kind) String() string { return name(int(k), "value", "tombstone", "failed") }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("%d", i)
	}
	return names[i]
}
