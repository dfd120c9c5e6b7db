package messaging

import (
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/retry"
)

var (
	// ErrLeaseLost is the cause of a handler's context, and the answer of a settlement, when the transport has given
	// the message to somebody else.
	ErrLeaseLost = errors.New("messaging: lease lost")
	// ErrInvalid is found in every refusal of a message, topic or group that no transport could carry.
	ErrInvalid = errors.New("messaging: invalid")
	// ErrUnknownTopic is found in the error of a publish to, or a subscription of, a topic that was never provisioned.
	ErrUnknownTopic = errors.New("messaging: unknown topic")
	// ErrUnsupported is found in every refusal of something the transport cannot do.
	ErrUnsupported = errors.New("messaging: not supported by this transport")
	// ErrDraining is the cause of a handler's context when a drain has waited long enough.
	ErrDraining = errors.New("messaging: draining")
	// ErrClosed is the answer of a transport that was closed.
	ErrClosed = errors.New("messaging: closed")
	// ErrNoResponder is the answer of a Requester when nobody serves the topic.
	ErrNoResponder = errors.New("messaging: no responder")
)

// Reject marks err as one that no retry can mend: the message is dead-lettered now. retry.Permanent means the same.
// Reject of nil is nil.
func Reject(err error) error { return retry.Permanent(err) }

// RetryAfter marks err as one that asks for another attempt after d. It does not count as an attempt and is bounded by
// the consumer's MaxAge. retry.After and the error of an open breaker mean the same. RetryAfter of nil is nil.
func RetryAfter(err error, d time.Duration) error { return retry.After(err, d) }

// isPermanent reports whether err carries the mark of retry.Permanent.
func isPermanent(err error) bool { return retry.Judge(err).Stop }

// hintOf returns the wish that err carries: of RetryAfter, retry.After, an open breaker.
func hintOf(err error) (time.Duration, bool) {
	o := retry.Judge(err)
	return o.Hint, o.Hinted
}

// PublishError says which messages of a Publish, or of a Send, are not stored.
type PublishError struct{ Failed []Failure }

// Failure is one message of a PublishError.
type Failure struct {
	Index   int  // among the messages of the call
	Unknown bool // it may be stored: the confirmation was lost
	Err     error
}

func (e *PublishError) Error() string {
	if len(e.Failed) == 0 {
		return "messaging: publish failed"
	}
	unknown := 0
	for _, f := range e.Failed {
		if f.Unknown {
			unknown++
		}
	}
	first := e.Failed[0]
	if len(e.Failed) == 1 {
		if first.Unknown {
			return fmt.Sprintf("messaging: message %d may or may not be stored: %v", first.Index, first.Err)
		}
		return fmt.Sprintf("messaging: message %d is not stored: %v", first.Index, first.Err)
	}
	return fmt.Sprintf("messaging: %d messages are not stored, of another %d that is not known; first message %d: %v",
		len(e.Failed)-unknown, unknown, first.Index, first.Err)
}

// Unwrap returns what each message failed with.
func (e *PublishError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, f := range e.Failed {
		errs = append(errs, f.Err)
	}
	return errs
}

// Permanent answers package retry: whether no message of them is worth another try. Of one that is, the others say
// nothing.
func (e *PublishError) Permanent() bool {
	for _, f := range e.Failed {
		if f.Unknown || !isFinal(f.Err) {
			return false
		}
	}
	return len(e.Failed) > 0
}

// Hint answers package retry: the longest wish of the transport.
func (e *PublishError) Hint() (d time.Duration, ok bool) {
	for _, f := range e.Failed {
		if wish, has := hintOf(f.Err); has {
			d, ok = max(d, wish), true
		}
	}
	return d, ok
}

// TooLargeError is a message over the limit of the transport.
type TooLargeError struct{ Size, Limit int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("messaging: message of %d bytes, headers included, is over the limit of %d", e.Size, e.Limit)
}
