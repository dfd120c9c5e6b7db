package messaging_test

import (
	"bufio"
	"bytes"
	"errors"
	"net/textproto"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
)

// The grammar once more, by other means.
var (
	topicGrammar  = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	headerGrammar = regexp.MustCompile(`^[a-z0-9-]{1,128}$`)
	reservedNames = regexp.MustCompile(`^(nats-.*|ce-(id|source|type|time|specversion|partitionkey|datacontenttype))$`)
)

func isText(v string) bool {
	return utf8.ValidString(v) && strings.TrimSpace(v) == v &&
		!strings.ContainsFunc(v, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) })
}

func isHeader(k, v string) bool {
	ours := strings.HasPrefix(k, "tandem-") && !strings.HasPrefix(k, "tandem-dead-")
	return headerGrammar.MatchString(k) && !ours && !reservedNames.MatchString(k) && isText(v)
}

func FuzzTopic(f *testing.F) {
	for _, s := range []string{"", "a", "a.b", ".", "a..b", "a.", "a*", "a>", "ä", "a b", "a\n", strings.Repeat("a", 200), strings.Repeat("a", 201)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := topicGrammar.MatchString(s) && !strings.HasSuffix(s, "\n") && len(s) <= 200
		if err := messaging.CheckTopic(s); (err == nil) != want || err != nil && !errors.Is(err, messaging.ErrInvalid) {
			t.Errorf("topic %q: got %v, want it valid: %v", s, err, want)
		}
	})
}

// What Publish accepts arrives as it was, over a transport in memory and over the lines of a protocol; the rest is refused.
func FuzzHeader(f *testing.F) {
	for _, s := range [][2]string{
		{"a", "b"},
		{"a", ""},
		{"A", "b"},
		{"", "b"},
		{"a", " b"},
		{"a", "b\u00a0"},
		{"a", "\u0085"},
		{"a", "\u2028"},
		{"a", "\xff"},
		{"tandem-x", "b"},
		{"tandem-dead-x", "b"},
		{"nats-x", "b"},
		{"ce-id", "b"},
		{"ce-x", "b"},
		{"a", "a\r\nb: c"},
		{"a", "grüße 🎉"},
		{"a", "\u200b"},
		{"a", "\ufeff"},
		{"a", "\u3000x"},
		{"a", "x\t"},
		{"a", "a\tb"},
	} {
		f.Add(s[0], s[1])
	}
	b, err := membus.New(membus.Config{})
	if err != nil {
		f.Fatal(err)
	}
	p, err := messaging.NewPublisher(b, messaging.PublisherConfig{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, k, v string) {
		sub, err := b.Open(t.Context(), messaging.Spec{Topic: "orders", Start: messaging.Latest(), Slots: 1})
		require.NoError(t, err)
		defer func() { require.NoError(t, sub.Close(t.Context())) }()
		m := &messaging.Message{Topic: "orders", Key: v, Header: messaging.Header{k: v}}
		err = p.Publish(t.Context(), m)
		if want := isHeader(k, v) && len(v) <= 512; (err == nil) != want {
			t.Fatalf("header %q: %q: got %v, want it valid: %v", k, v, err, want)
		}
		if err != nil {
			require.ErrorIs(t, err, messaging.ErrInvalid)
			return
		}
		into := make([]messaging.Delivery, 1)
		_, err = sub.Receive(t.Context(), into)
		require.NoError(t, err)
		require.Equal(t, m.Header, into[0].Message.Header)
		require.Equal(t, v, into[0].Message.Key)
		lines := bufio.NewReader(bytes.NewBufferString(k + ": " + v + "\r\n\r\n"))
		h, err := textproto.NewReader(lines).ReadMIMEHeader()
		require.NoError(t, err)
		require.Equal(t, []string{v}, h.Values(k))
	})
}
