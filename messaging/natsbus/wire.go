package natsbus

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
)

// The headers on the wire: CloudEvents 1.0, NATS protocol binding, binary content mode. The names are for ever.
const (
	ceSpec   = "ce-specversion"
	ceID     = "ce-id"
	ceType   = "ce-type"
	ceSource = "ce-source"
	ceTime   = "ce-time"
	ceKey    = "ce-partitionkey"
	ceData   = "ce-datacontenttype"

	contentType = "content-type"
)

// reserved are the header names that carry fields of a Message.
func reserved(name string) bool {
	switch name {
	case ceSpec, ceID, ceType, ceSource, ceTime, ceKey, ceData:
		return true
	}
	return strings.HasPrefix(name, "nats-")
}

// encode returns m as it travels to subject, and its size as the server counts it. dedupe may be empty.
func encode(m *messaging.Message, subject, dedupe string) (*nats.Msg, int, error) {
	w := headerWriter{h: make(nats.Header, 8+len(m.Header)), values: make([]string, 0, 8+len(m.Header)), size: len("NATS/1.0\r\n\r\n")}
	if dedupe != "" {
		w.set(nats.MsgIdHdr, escape(dedupe))
	}
	w.set(ceSpec, "1.0")
	if m.ID != "" {
		w.set(ceID, escape(m.ID))
	}
	if m.Type != "" {
		w.set(ceType, escape(m.Type))
	}
	if m.Source != "" {
		w.set(ceSource, escape(m.Source))
	}
	if !m.Time.IsZero() {
		w.set(ceTime, m.Time.UTC().Format(time.RFC3339Nano))
	}
	if m.Key != "" {
		w.set(ceKey, escape(m.Key))
	}
	for k, v := range m.Header {
		switch {
		case reserved(k) || !portableName(k):
			return nil, 0, fmt.Errorf("%w: header %q is reserved or no portable name", messaging.ErrInvalid, k)
		case !portableText(v): // nats.go would trim it, and turn line ends into spaces
			return nil, 0, fmt.Errorf("%w: header %q is no printable text", messaging.ErrInvalid, k)
		case k == contentType:
			w.set(ceData, escape(v)) // the attribute, beside the header that plain NATS clients look for
			w.set(k, v)
		case strings.HasPrefix(k, "ce-"):
			w.set(k, escape(v)) // an extension attribute
		default:
			w.set(k, v)
		}
	}
	return &nats.Msg{Subject: subject, Header: w.h, Data: m.Body}, w.size + len(m.Body), nil
}

// headerWriter fills a nats.Header with single values out of one backing array.
type headerWriter struct {
	h      nats.Header
	values []string
	size   int
}

func (w *headerWriter) set(k, v string) {
	w.values = append(w.values, v)
	n := len(w.values)
	w.h[k] = w.values[n-1 : n : n]
	w.size += len(k) + len(": ") + len(v) + len("\r\n")
}

// decode returns the message that n carries, such that it could be published again; ID and Time stay empty where n says
// nothing usable about them. The error says what could not be read. Names of foreign headers are lower-cased; headers of
// the server ("Nats-") and those that do not fit are left out, and of several values the first counts.
func decode(n *nats.Msg, topic string) (*messaging.Message, error) {
	m := &messaging.Message{Topic: topic, Body: n.Data}
	if m.Body == nil {
		m.Body = []byte{}
	}
	var fault error
	for name, values := range n.Header {
		k := lower(name)
		if len(values) == 0 || strings.HasPrefix(k, "nats-") {
			continue
		}
		if _, exact := n.Header[k]; exact && k != name {
			continue
		}
		v := strings.Trim(values[0], " \t")
		if strings.HasPrefix(k, "ce-") {
			u, err := unescape(v)
			if err != nil {
				fault = fmt.Errorf("natsbus: header %s: %w", k, err)
				continue
			}
			v = u
		}
		if err := decodeHeader(m, k, v); err != nil {
			fault = err
		}
	}
	return m, fault
}

// decodeHeader puts one header into its place in m.
func decodeHeader(m *messaging.Message, k, v string) error {
	switch k {
	case ceSpec:
		if v != "1.0" {
			return fmt.Errorf("natsbus: header %s is not 1.0", k)
		}
	case ceTime:
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return fmt.Errorf("natsbus: header %s is no RFC 3339 time", k)
		}
		m.Time = t
	case ceKey:
		if !portableText(v) {
			v = base64.StdEncoding.EncodeToString([]byte(v))
		}
		return setField(&m.Key, k, v)
	case ceID:
		return setField(&m.ID, k, v)
	case ceType:
		return setField(&m.Type, k, v)
	case ceSource:
		return setField(&m.Source, k, v)
	case ceData:
		if _, ok := m.Header[contentType]; !ok {
			putHeader(m, contentType, v)
		}
	default:
		putHeader(m, k, v)
	}
	return nil
}

// maxField is the longest attribute that Publish accepts.
const maxField = 512

func setField(field *string, name, v string) error {
	if len(v) > maxField || !portableText(v) {
		return fmt.Errorf("natsbus: header %s is longer than %d bytes or no printable text", name, maxField)
	}
	*field = v
	return nil
}

// putHeader sets a header, unless it is one that Publish would refuse.
func putHeader(m *messaging.Message, k, v string) {
	if !portableName(k) || !portableText(v) {
		return
	}
	if m.Header == nil {
		m.Header = make(messaging.Header, 4)
	}
	m.Header[k] = v
}

// portableName reports whether k may name a header of a Message.
func portableName(k string) bool {
	for i := range len(k) {
		c := k[i]
		if ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'; !ok {
			return false
		}
	}
	return k != "" && len(k) <= 128
}

// portableText reports whether v is what every transport can carry as a header: printable UTF-8 without outer spaces.
func portableText(v string) bool {
	if strings.TrimSpace(v) != v || !utf8.ValidString(v) {
		return false
	}
	return !strings.ContainsFunc(v, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' })
}

// lower returns the ASCII lower case of s, without an allocation where s is that already.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// escape percent-encodes what CloudEvents forbids in a header value: space, double quote, percent, and all outside of
// printable ASCII.
func escape(s string) string {
	n := 0
	for i := range len(s) {
		if mustEscape(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; mustEscape(c) {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func mustEscape(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

// unescape undoes escape. It also reads the double-quoted form of older producers.
func unescape(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = unquote(s[1 : len(s)-1])
	}
	if strings.IndexByte(s, '%') >= 0 {
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] != '%' {
				b = append(b, s[i])
				continue
			}
			if i+2 >= len(s) {
				return "", fmt.Errorf("percent-encoding cut short")
			}
			c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("wrong percent-encoding")
			}
			b = append(b, byte(c))
			i += 2
		}
		s = string(b)
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("no UTF-8")
	}
	return s, nil
}

// unquote undoes backslash escapes, RFC 7230 section 3.2.6.
func unquote(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// An ackInfo is what the reply subject of a JetStream delivery says.
type ackInfo struct {
	consumer   string
	deliveries int
	stream     uint64 // sequence in the stream
	seq        uint64 // of the delivery, in the consumer
	time       time.Time
	pending    uint64
}

const ackPrefix = "$JS.ACK."

// parseAck reads "$JS.ACK.<stream>.<consumer>.<deliveries>.<sseq>.<cseq>.<time>.<pending>", or the longer form with
// "<domain>.<account>." before the stream and a token of its own at the end.
func parseAck(reply string) (ackInfo, bool) {
	if !strings.HasPrefix(reply, ackPrefix) {
		return ackInfo{}, false
	}
	var tok [12]string
	n := 0
	for t := range strings.SplitSeq(reply[len(ackPrefix):], ".") {
		if n == len(tok) {
			break
		}
		tok[n] = t
		n++
	}
	at := 0
	switch {
	case n == 7:
	case n >= 9:
		at = 2
	default:
		return ackInfo{}, false
	}
	var num [5]uint64
	for i := range num {
		v, err := strconv.ParseUint(tok[at+2+i], 10, 63)
		if err != nil {
			return ackInfo{}, false
		}
		num[i] = v
	}
	return ackInfo{
		consumer: tok[at+1], deliveries: int(num[0]), stream: num[1], seq: num[2],
		time: time.Unix(0, int64(num[3])).UTC(), pending: num[4],
	}, true
}
