// Package idempotency lets a duplicate never have a second effect.
package idempotency

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandemgo/tandem/messaging"
)

// A Key names one operation. Scope keeps apart what must not meet (tenants, routes, consumers); it is mandatory.
type Key struct{ Scope, ID string }

// A Store keeps one record per Key. Each method is one atomic operation of the store; the store's clock decides about
// leases and retention. Any number of goroutines may use a Store at once.
type Store interface {
	// Begin claims k, or says why it cannot be claimed, with what is known.
	Begin(ctx context.Context, k Key, o BeginOptions) (Claim, error)
	// Extend starts the lease anew. ErrLost: somebody else has the claim, or nobody.
	Extend(ctx context.Context, t Ticket, lease time.Duration) error
	// Complete keeps r for retain. ErrLost: the claim was taken over; what is stored stays.
	Complete(ctx context.Context, t Ticket, r Result, retain time.Duration) error
	// Release gives the claim up without a result: the next Begin owns it. ErrLost as above.
	Release(ctx context.Context, t Ticket) error
	// Promises says what this store keeps to.
	Promises() Promises
}

// Promises is what a Store really keeps to; the conformance kit asserts both sides.
type Promises struct {
	// LateComplete: a Complete after the lease has passed succeeds if nobody took over.
	LateComplete bool
	// Park: BeginOptions.Park is honoured; where not, Begin with it is an error.
	Park     bool
	MinLease time.Duration // shorter leases are refused
	MaxBytes int           // of a Result's body; larger ones become tombstones. Zero: no limit
	// Durable: records survive the process.
	Durable bool
}

// BeginOptions are the options of Begin.
type BeginOptions struct {
	Fingerprint []byte        // of the request, compared in every state. Empty: not compared
	Lease       time.Duration // must be positive
	// Park answers Unknown instead of Owned when an earlier owner lost its lease: the effect may have happened.
	Park bool
}

// A Claim is the answer of Begin.
type Claim struct {
	Status     Status
	Ticket     Ticket        // with Owned
	Result     Result        // with Replay
	RetryAfter time.Duration // with InFlight: when the other owner's lease would end
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

func (s Status) String() string { panic("unwritten") }

// A Ticket is the right to finish what Begin gave. It is plain data and may be copied.
type Ticket struct {
	Key      Key
	Token    string // compared by the store; secret
	Fence    uint64 // grows with every owner of the key; hand it to what can compare it
	Attempt  int    // owners of the key so far, this one included
	Revision uint64 // the store's own
}

// A Result is what Complete keeps.
type Result struct {
	Kind Kind
	Meta map[string]string
	Body []byte
	At   time.Time // when it was completed; set by the store
}

// Kind is the kind of a Result.
type Kind int

// The kinds.
const (
	Value     Kind = iota // Body is the answer
	Tombstone             // done, but the answer could not be kept
	Failed                // done, and the answer is a failure that would happen again
)

// Config configures Do. The zero Config is right in production.
type Config struct {
	Fingerprint []byte        // of the request. Zero: not compared
	Lease       time.Duration // extended while the work goes on. Zero: 30 s
	Retain      time.Duration // how long a result is kept. Zero: 24 h
	Wait        time.Duration // how long to wait for another owner's result. Zero: not; ErrInFlight at once
	Park        bool          // an owner that vanished in the middle leaves ErrUnknown, not a second run. Zero: a second run
	MaxBytes    int           // larger results become tombstones. Zero: 256 KiB
	// Codec keeps the value of Do. Zero: JSON.
	Codec messaging.Codec
	// Keep says whether an error is kept and answered again, instead of giving the claim up. Zero: none is.
	Keep func(error) bool
	// OnEvent is called with each decision. Zero: nothing is called.
	OnEvent func(ctx context.Context, e Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// An Event tells of one decision.
type Event struct {
	Scope  string
	Status Status
	Err    error
	Late   bool // the result was kept after the lease had passed
}

// Do runs fn unless it was done already, and keeps its value. A duplicate gets the kept value; one that comes too early
// ErrInFlight, one with another fingerprint ErrMismatch. The context of fn ends with ErrLost when the lease is lost.
func Do[T any](ctx context.Context, s Store, k Key, c Config, fn func(context.Context) (T, error)) (T, error) {
	panic("unwritten")
}

// FromContext returns the ticket of the work that ctx belongs to.
func FromContext(ctx context.Context) (Ticket, bool) { panic("unwritten") }

// ConsumeConfig configures Consume. The zero ConsumeConfig is right in production.
type ConsumeConfig struct {
	Key    func(*messaging.Message) (string, error) // Zero: the message's ID; a message without one is rejected
	Lease  time.Duration                            // Zero: the consumer's
	Retain time.Duration                            // Zero: 7 days
	Park   bool                                     // as in Config
	// Fingerprint of the message, so that one ID with other bytes is a dead letter. Zero: the body.
	Fingerprint func(*messaging.Message) []byte
	// OnEvent is called with each decision. Zero: nothing is called.
	OnEvent func(ctx context.Context, e Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Consume returns a Middleware that runs the handler once per message, for the named consumer: two consumers of one
// message must not shadow each other.
func Consume(s Store, consumer string, c ConsumeConfig) messaging.Middleware { panic("unwritten") }
