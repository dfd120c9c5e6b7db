package messaging

import "time"

// A Message is plain data; the same type is published and received. A message that was handed to Publish or to a
// Handler is shared: it must not be changed afterwards.
type Message struct {
	// ID identifies the message for ever, over retries, redeliveries and redrives. Empty at Publish: a UUIDv7 is minted,
	// and written back, before the first attempt.
	ID string
	// Topic is where it goes to, or came from.
	Topic string
	// Key names what must stay in order: messages of one key are handled one after another by an Ordered consumer, and
	// choose one partition where the transport has partitions. Empty: no order.
	Key string
	// Type and Source are CloudEvents' type and source. Source empty at Publish: the publisher's.
	Type, Source string
	// Header travels with the message. Keys are [a-z0-9-]+, values printable UTF-8 without outer spaces: what every
	// transport can carry. Anything else is refused by Publish.
	Header Header
	// Body is carried untouched.
	Body []byte
	// Time is when the message was published. Zero at Publish: now.
	Time time.Time
	// NotBefore asks for a delivery not before this time. Zero: at once. Refused where the transport cannot.
	NotBefore time.Time

	// Attempt counts the deliveries of this message to this group, from 1. Set on receipt.
	Attempt int
	// Group is the group that received it. Set on receipt.
	Group string
	// Cursor is the place of the message in its log, for a later StartAfter. Set on receipt where Features.Replay allows.
	Cursor Cursor
}

// Header is the set of headers of a Message.
type Header map[string]string

// Cursor is a place in the log of one topic of one transport; opaque elsewhere.
type Cursor string
