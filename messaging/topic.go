package messaging

import (
	"context"
	"encoding/json"
	"fmt"
)

// A Topic ties a topic's name to the Go type of its messages, for both ends. A Topic is plain data; any number of
// goroutines may use one at once.
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
func (jsonCodec) Encode(v any) ([]byte, error) { return json.Marshal(v) }
func (jsonCodec) Decode(b []byte, v any) error { return json.Unmarshal(b, v) }

const headerContentType = "content-type"

// Message returns v as a message, with the content type of the codec in the header content-type.
func (t Topic[T]) Message(v T) (*Message, error) {
	codec := t.codec()
	body, err := codec.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("messaging: encode %T for topic %s: %w", v, t.Name, err)
	}
	m := &Message{Topic: t.Name, Type: t.Type, Body: body}
	if ct := codec.ContentType(); ct != "" {
		m.Header = Header{headerContentType: ct}
	}
	if m.Type == "" {
		m.Type = t.Name
	}
	if t.Key != nil {
		m.Key = t.Key(v)
	}
	if t.ID != nil {
		m.ID = t.ID(v)
	}
	return m, nil
}

// Publish publishes each value as one message. Nothing is published when a value cannot be encoded. Otherwise the error
// is that of Publisher.Publish.
func (t Topic[T]) Publish(ctx context.Context, p *Publisher, v ...T) error {
	messages := make([]*Message, len(v))
	for i := range v {
		m, err := t.Message(v[i])
		if err != nil {
			return err
		}
		messages[i] = m
	}
	return p.Publish(ctx, messages...)
}

// Handle returns a Handler that decodes the body. A body that cannot be decoded is rejected.
func (t Topic[T]) Handle(h func(ctx context.Context, v T, m *Message) error) Handler {
	codec := t.codec()
	return func(ctx context.Context, m *Message) error {
		var v T
		if err := codec.Decode(m.Body, &v); err != nil {
			return Reject(fmt.Errorf("messaging: decode %T: %w", v, err))
		}
		return h(ctx, v, m)
	}
}

func (t Topic[T]) codec() Codec {
	if t.Codec == nil {
		return JSON
	}
	return t.Codec
}
