package idempotency

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// Config configures Do. The zero Config is right in production.
type Config struct {
	// Fingerprint of the request, any bytes; its hash is compared. Zero, which is nil: not compared.
	Fingerprint []byte
	Lease       time.Duration // extended while the work goes on. Zero: 30 s
	Retain      time.Duration // how long a result is kept. Zero: 24 h
	// Wait is how long to wait for another owner's result. Zero: not; ErrInFlight at once.
	Wait time.Duration
	// Park: an owner that vanished in the middle leaves ErrUnknown, not a second run, for Retain. Zero: a second run.
	Park     bool
	MaxBytes int // larger results become tombstones. Zero: 256 KiB
	// Codec keeps the value of Do. Zero: JSON.
	Codec messaging.Codec
	// Keep says whether an error is kept and answered again, instead of giving the claim up. Zero: none is.
	Keep func(error) bool
	// OnEvent is called with each step, from the goroutine of Do or of the heartbeat. Zero: nothing is called.
	OnEvent func(ctx context.Context, e Event)
	// Log gets one line per decision that matters. Zero: silent.
	Log *slog.Logger
}

// Do runs fn unless it was done already, and keeps its value. A duplicate gets the kept value; one that comes too early
// ErrInFlight, one with another fingerprint ErrMismatch, one whose value could not be kept ErrNotKept, one whose failure
// was kept a *KeptError. An error of the store means that fn did not run. What a duplicate gets has been through the
// Codec: JSON drops unexported fields, and makes other types of what T leaves open.
//
// fn runs in the caller's goroutine. Its context carries the Ticket, and ends with cause ErrLost when the lease cannot
// be kept. An error or a panic of fn gives the claim up, so that the next call runs; they reach the caller as they are.
//
// When ctx ends while the key is being claimed, Do waits up to 1 s for the store's answer, and gives a claim back that
// comes then. After fn, Do may take up to 5 s more while the store fails, also when ctx has ended. A value that could
// not be stored is returned all the same, and the claim is left to its lease. ErrLost together with a value: somebody
// else took over, and the work may have been done twice.
//
// ErrInFlight says with Hint() (time.Duration, bool) when the other owner's lease ends; package retry and package
// messaging honour it, and take the other answers to a duplicate as permanent.
func Do[T any](ctx context.Context, s Store, k Key, c Config, fn func(context.Context) (T, error)) (T, error) {
	var value T
	if s == nil || fn == nil {
		return value, errors.New("idempotency: Do needs a store and a function")
	}
	if err := c.validate(); err != nil {
		return value, err
	}
	codec := c.Codec
	if codec == nil {
		codec = messaging.JSON
	}
	j := job{
		store: s, key: k, retain: c.Retain, wait: c.Wait, maxBytes: c.MaxBytes,
		options: BeginOptions{Fingerprint: digest(c.Fingerprint), Lease: c.Lease, Park: c.Park},
		teller:  teller{c.OnEvent, c.Log},
	}
	j.fill(30*time.Second, 24*time.Hour)

	claim, out, err := j.run(ctx, func(ctx context.Context) (out outcome) {
		value, out.err = fn(ctx)
		if out.err != nil && keeps(c.Keep, out.err) {
			out.result, out.keep = failure(out.err), true
		}
		return out
	}, func() Result { return encode(codec, value) })
	if err != nil {
		return value, err
	}
	if claim.Status == Owned {
		return value, out.err
	}
	return replay[T](codec, claim.Result)
}

// replay is the answer to a duplicate. A value that cannot be read is an error, never a second run.
func replay[T any](codec messaging.Codec, r Result) (T, error) {
	var value T
	switch r.Kind {
	case Value:
		if err := codec.Decode(r.Body, &value); err != nil {
			var none T // not what there was of it before the fault
			return none, retry.Permanent(fmt.Errorf("idempotency: decode the kept value: %w", err))
		}
		return value, nil
	case Failed:
		return value, &KeptError{Text: string(r.Body)}
	default:
		return value, retry.Permanent(ErrNotKept)
	}
}

// encode runs after the effect: whatever goes wrong in it must not give the claim up.
func encode(codec messaging.Codec, v any) (r Result) {
	defer func() {
		if recover() != nil {
			r = Result{Kind: Tombstone}
		}
	}()
	b, err := codec.Encode(v)
	if err != nil {
		return Result{Kind: Tombstone}
	}
	return Result{Kind: Value, Body: b}
}

// keeps asks the user. A panic is a no: the claim is given up, as without Keep.
func keeps(keep func(error) bool, err error) (yes bool) {
	if keep == nil {
		return false
	}
	defer func() {
		if recover() != nil {
			yes = false
		}
	}()
	return keep(err)
}

// failure keeps the text of err, cut: an error is told, not transported.
func failure(err error) Result {
	const most = 4096
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return Result{Kind: Failed, Body: []byte(text)}
}

func (c Config) validate() error {
	return errors.Join(
		notNegative("Lease", c.Lease), notNegative("Retain", c.Retain), notNegative("Wait", c.Wait),
		notNegative("MaxBytes", c.MaxBytes),
	)
}

func notNegative[N ~int | ~int64](field string, n N) error {
	if n < 0 {
		return fmt.Errorf("idempotency: %s is negative", field)
	}
	return nil
}

// digest is the fingerprint of b as it is stored. The first byte names the algorithm: it is what lets a later release
// tell an old fingerprint from a wrong one. Nil, and only nil, is not compared.
func digest(b []byte) []byte {
	if b == nil {
		return nil
	}
	sum := sha256.Sum256(b)
	return append([]byte{1}, sum[:]...)
}

type workingKey struct{}

// working is what the context of the work knows.
type working struct {
	ticket Ticket
	done   atomic.Bool // nothing gives the claim up any more
}

func workOf(ctx context.Context) *working {
	w, _ := ctx.Value(workingKey{}).(*working)
	return w
}

// FromContext returns the Ticket of the work that ctx belongs to, innermost first. Its Fence is what to hand to a
// system that can refuse a smaller one; above 1, its Attempt says that an earlier owner vanished in the middle.
func FromContext(ctx context.Context) (Ticket, bool) {
	w := workOf(ctx)
	if w == nil {
		return Ticket{}, false
	}
	return w.ticket, true
}

// Done says that the effect of the work that ctx belongs to, innermost first, is there: no error, panic or
// runtime.Goexit after it gives the claim up. Such an end leaves a tombstone; the caller sees it as it is. It does not
// help against the death of the process, and outside of any work it does nothing.
func Done(ctx context.Context) {
	if w := workOf(ctx); w != nil {
		w.done.Store(true)
	}
}
