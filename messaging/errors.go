package messaging

import (
	"errors"
	"time"
)

var (
	// ErrLeaseLost is the cause of a handler's context, and the answer of a settlement, when the transport has given
	// the message to somebody else.
	ErrLeaseLost = errors.New("messaging: lease lost")
	// ErrUnknownTopic is found in the error of a publish to, or a subscription of, a topic that was never provisioned.
	ErrUnknownTopic = errors.New("messaging: unknown topic")
	// ErrUnsupported is found in every refusal of something the transport cannot do.
	ErrUnsupported = errors.New("messaging: not supported by this transport")
	// ErrDraining is the cause of a handler's context when a drain has waited long enough.
	ErrDraining = errors.New("messaging: draining")
	// ErrClosed is the answer of a transport that was closed.
	ErrClosed = errors.New("messaging: closed")
	// ErrNoResponder is the answer of Request when nobody serves the topic.
	ErrNoResponder = errors.New("messaging: no responder")
)

// Reject marks err as one that no retry can mend: the message is dead-lettered now. retry.Permanent means the same.
func Reject(err error) error { panic("unwritten") }

// RetryAfter marks err as one that asks for another attempt after d. It does not count as an attempt and is bounded by
// the consumer's MaxAge. retry.After and the error of an open breaker mean the same.
func RetryAfter(err error, d time.Duration) error { panic("unwritten") }

// PublishError says which messages of a Publish, or of a Send, are not stored.
type PublishError struct{ Failed []Failure }

// Failure is one message of a PublishError.
type Failure struct {
	Index   int  // among the messages of the call
	Unknown bool // it may be stored: the confirmation was lost
	Err     error
}

func (e *PublishError) Error() string   { panic("unwritten") }
func (e *PublishError) Unwrap() []error { panic("unwritten") }

// TooLargeError is a message over the limit of the transport.
type TooLargeError struct{ Size, Limit int }

func (e *TooLargeError) Error() string { panic("unwritten") }
