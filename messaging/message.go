package messaging

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Message is plain data; the same type is published and received. A message that was handed to Publish or to a
// Handler is shared: it must not be changed afterwards.
type Message struct {
	// ID identifies the message for ever, among those of its Source, over retries, redeliveries and redrives. Empty at
	// Publish: a UUIDv7 is minted, and written back, before the first attempt. ID, Key, Type and Source are printable UTF-8 without outer spaces, of
	// 512 bytes at most.
	ID string
	// Topic is where it goes to, or came from: letters, digits, - and _, in parts separated by dots, 200 bytes at most.
	Topic string
	// Key names what must stay in order: messages of one key are handled one after another by an Ordered consumer, and
	// choose one partition where the transport has partitions. Empty: no order.
	Key string
	// Type and Source are CloudEvents' type and source. Source empty at Publish: the publisher's.
	Type, Source string
	// Header travels with the message. Keys are [a-z0-9-]+, values printable UTF-8 without outer spaces: what every
	// transport can carry. Anything else is refused by Publish. Keys that begin with tandem- are the library's, those
	// that begin with nats- a transport's: both are refused, but for the tandem-dead- that a copied dead letter has.
	// CloudEvents attributes without a field here, such as subject, are named ce-subject and so on; content-type is
	// their datacontenttype.
	Header Header
	// Body is carried untouched.
	Body []byte
	// Time is when the message was published, in a year of four digits, as NotBefore. Zero at Publish: now.
	Time time.Time
	// NotBefore asks for a delivery not before this time. Zero: at once. Refused where the transport cannot.
	NotBefore time.Time

	// Attempt, Group and Cursor are set on receipt; Publish ignores them. Attempt counts the deliveries of this message
	// to this group, from 1, and its retries in this process; the transport may count what was handed back, too.
	Attempt int
	// Group is the group that received it.
	Group string
	// Cursor is the place of the message in its log, for a later After; empty where Features.Replay is less.
	Cursor Cursor
}

// Header is the set of headers of a Message.
type Header map[string]string

// Cursor is a place in the log of one topic of one transport; opaque elsewhere.
type Cursor string

// Lane names the log among those of a topic that has several, such as partitions: the part before the first colon.
// It is empty where the log is one.
func (c Cursor) Lane() string {
	lane, _, several := strings.Cut(string(c), ":")
	if !several {
		return ""
	}
	return lane
}

// The bounds of what every transport can carry.
const (
	maxTopic  = 200
	maxGroup  = 128
	maxString = 512 // ID, Key, Type, Source
	maxKey    = 128 // of a header
)

// CheckTopic reports why name cannot be the name of a topic: it must consist of letters, digits, - and _, in parts
// separated by dots, of 200 bytes at most. The error is ErrInvalid.
func CheckTopic(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the topic is empty", ErrInvalid)
	}
	if len(name) > maxTopic {
		return fmt.Errorf("%w: the topic has %d bytes, more than %d", ErrInvalid, len(name), maxTopic)
	}
	for part := range strings.SplitSeq(name, ".") {
		if !isWord(part) {
			return fmt.Errorf("%w: topic %q: a part must be letters, digits, - and _", ErrInvalid, name)
		}
	}
	return nil
}

func checkGroup(name string) error {
	if len(name) > maxGroup || !isWord(name) {
		return fmt.Errorf("%w: group %q: it must be letters, digits, - and _, of %d bytes at most", ErrInvalid, name, maxGroup)
	}
	return nil
}

func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
		if !word {
			return false
		}
	}
	return s != ""
}

// check reports what no transport could carry. It names fields and header keys, never values.
func (m *Message) check() error {
	if err := CheckTopic(m.Topic); err != nil {
		return err
	}
	for _, f := range [...]struct{ name, value string }{
		{"ID", m.ID}, {"Key", m.Key}, {"Type", m.Type}, {"Source", m.Source},
	} {
		if len(f.value) > maxString {
			return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrInvalid, f.name, len(f.value), maxString)
		}
		if err := checkValue(f.value); err != nil {
			return fmt.Errorf("%w: %s %w", ErrInvalid, f.name, err)
		}
	}
	for _, f := range [...]struct {
		name  string
		value time.Time
	}{{"Time", m.Time}, {"NotBefore", m.NotBefore}} {
		if !canTravel(f.value) {
			return fmt.Errorf("%w: the year of %s has not four digits", ErrInvalid, f.name)
		}
	}
	for k, v := range m.Header {
		if err := checkHeader(k, v); err != nil {
			return fmt.Errorf("%w: header %q %w", ErrInvalid, k, err)
		}
	}
	return nil
}

// canTravel reports whether t can be written as RFC 3339 says, by which it travels.
func canTravel(t time.Time) bool {
	const from, until = -62167219200, 253402300800 // the first seconds of the years 0 and 10000
	s := t.Unix()
	return from <= s && s < until
}

var (
	errHeaderKey      = errors.New("must be [a-z0-9-]+, of 128 bytes at most")
	errHeaderReserved = errors.New("is reserved")
	errValueUTF8      = errors.New("is not valid UTF-8")
	errValueSpace     = errors.New("begins or ends with a space")
	errValueControl   = errors.New("contains a control character")
)

func checkHeader(k, v string) error {
	if k == "" || len(k) > maxKey {
		return errHeaderKey
	}
	for i := range len(k) {
		c := k[i]
		portable := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
		if !portable {
			return errHeaderKey
		}
	}
	if isReserved(k) {
		return errHeaderReserved
	}
	return checkValue(v)
}

// isReserved reports whether a header key belongs to the library, to a transport, or to a field of Message.
func isReserved(k string) bool {
	switch k[0] {
	case 't':
		return strings.HasPrefix(k, "tandem-") && !strings.HasPrefix(k, headerDead)
	case 'n':
		return strings.HasPrefix(k, "nats-")
	case 'c':
		switch k {
		case "ce-id", "ce-source", "ce-type", "ce-time", "ce-specversion", "ce-partitionkey", "ce-datacontenttype":
			return true
		}
	}
	return false
}

func checkValue(v string) error {
	ascii := true
	for i := range len(v) {
		c := v[i]
		if c < ' ' || c == 0x7f {
			return errValueControl
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if v != "" && (v[0] == ' ' || v[len(v)-1] == ' ') {
		return errValueSpace
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(v) {
		return errValueUTF8
	}
	if strings.TrimSpace(v) != v {
		return errValueSpace
	}
	if strings.ContainsFunc(v, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }) {
		return errValueControl
	}
	return nil
}

// size is what a message costs against Features.MaxBytes: what the bindings of CloudEvents put on the wire, rounded up. It
// does not depend on the topic, so that what could be published can be dead-lettered.
func (m *Message) size() int {
	// Names of the ce- headers with their times, and a topic, which is in the id for deduplication; ": " and CRLF.
	const attributes, perHeader = 160 + maxTopic, 4
	n := attributes + len(m.Body) + 2*len(m.ID) + len(m.Key) + len(m.Type) + 2*len(m.Source) // see DedupeID
	for k, v := range m.Header {
		n += len(k) + len(v) + perHeader
	}
	return n
}

// DedupeID is what an adapter gives its transport to drop a second publish of m. It differs by topic, so that one ID may
// be published to two topics; by Source, because CloudEvents promises no more than that an ID is unique for its source;
// and for a dead letter or a redriven copy, which keep both of their original.
func DedupeID(m *Message) string {
	group, again := m.Header[headerDeadGroup], m.Header[headerDeadRedriven]
	name, origin := m.Topic, m.Topic
	if group != "" || again != "" {
		// No topic holds an exclamation mark, so a copy never meets an original.
		dead := m.Header[headerDeadTopic]
		name += "!" + dead + "!" + group + "!" + again
		if dead != "" {
			origin = dead
		}
	}
	if s := m.Source; s != "" && (s[0] != '/' || s[1:] != origin) { // another than Publish gives by default
		name += "@" + strconv.Itoa(len(s)) + ":" + s
	}
	return name + "/" + m.ID
}
