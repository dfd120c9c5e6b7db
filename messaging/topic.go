package messaging

import "context"

// A Topic ties a topic's name to the Go type of its messages, for both ends.
type Topic[T any] struct {
	Name  string
	Type  string         // CloudEvents type. Zero: the name
	Codec Codec          // Zero: JSON
	Key   func(T) string // Zero: no key
	ID    func(T) string // Zero: an ID is minted
}

// A Codec turns values into bytes and back.
type Codec interface {
	ContentType() string
	Encode(v any) ([]byte, error)
	Decode(b []byte, v any) error
}

// JSON is the default Codec.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) ContentType() string          { return "application/json" }
func (jsonCodec) Encode(v any) ([]byte, error) { panic("unwritten") }
func (jsonCodec) Decode(b []byte, v any) error { panic("unwritten") }

// Message returns v as a message.
func (t Topic[T]) Message(v T) (*Message, error) { panic("unwritten") }

// Publish publishes each value as one message.
func (t Topic[T]) Publish(ctx context.Context, p *Publisher, v ...T) error { panic("unwritten") }

// Handle returns a Handler that decodes the body. A body that cannot be decoded is rejected.
func (t Topic[T]) Handle(h func(ctx context.Context, v T, m *Message) error) Handler {
	panic("unwritten")
}
