package natsbus

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
)

// What is on the wire outlives a release: these bytes must not change.
func TestEncodeGolden(t *testing.T) {
	m := &messaging.Message{
		ID: "id 1", Topic: "a.b", Key: "käse", Type: "order.created", Source: "/shop",
		Header: messaging.Header{"content-type": "application/json", "tenant": "ä b", "ce-subject": "x y"},
		Body:   []byte("{}"), Time: time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600)),
	}
	wire, size, err := encode(m, "p.a.b", "a.b/id 1")
	require.NoError(t, err)
	require.Equal(t, nats.Header{
		"Nats-Msg-Id":        {"a.b/id%201"},
		"ce-specversion":     {"1.0"},
		"ce-id":              {"id%201"},
		"ce-type":            {"order.created"},
		"ce-source":          {"/shop"},
		"ce-time":            {"2026-01-02T02:04:05.0000006Z"},
		"ce-partitionkey":    {"k%C3%A4se"},
		"ce-subject":         {"x%20y"},
		"ce-datacontenttype": {"application/json"},
		"content-type":       {"application/json"},
		"tenant":             {"ä b"},
	}, wire.Header)
	require.Equal(t, "p.a.b", wire.Subject)
	require.Equal(t, wire.Size()-len(wire.Subject), size, "the size that nats.go sends")
}

func TestEncodeRefusesReservedHeaders(t *testing.T) {
	for _, k := range []string{"ce-id", "ce-source", "ce-type", "ce-time", "ce-specversion", "ce-partitionkey", "ce-datacontenttype", "nats-msg-id", "nats-x", "", "A", "a b", "a:b", "a_b", "ä"} {
		_, _, err := encode(&messaging.Message{ID: "1", Topic: "t", Header: messaging.Header{k: "v"}}, "t", "")
		require.ErrorIs(t, err, messaging.ErrInvalid, "%q", k)
	}
}

func TestEncodeZeroMessage(t *testing.T) {
	wire, _, err := encode(&messaging.Message{Topic: "t"}, "t", "")
	require.NoError(t, err)
	require.Equal(t, nats.Header{"ce-specversion": {"1.0"}}, wire.Header)
}

func TestDecodeForeign(t *testing.T) {
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		name   string
		header nats.Header
		want   messaging.Message
		fault  string
	}{
		{"no header", nil, messaging.Message{}, ""},
		{"case", nats.Header{"CE-ID": {"1"}, "Content-Type": {"a/b"}}, messaging.Message{ID: "1", Header: messaging.Header{"content-type": "a/b"}}, ""},
		{"lower case wins", nats.Header{"A": {"1"}, "a": {"2"}}, messaging.Message{Header: messaging.Header{"a": "2"}}, ""},
		{"first value", nats.Header{"a": {"1", "2"}, "b": {}}, messaging.Message{Header: messaging.Header{"a": "1"}}, ""},
		{"server headers", nats.Header{"Nats-Stream": {"s"}, "nats-x": {"y"}}, messaging.Message{}, ""},
		{"names that do not fit", nats.Header{"a_b": {"1"}, "ä": {"1"}}, messaging.Message{}, ""},
		{"values that do not fit", nats.Header{"a": {"\x01"}, "b": {"\xff"}}, messaging.Message{}, ""},
		{"content type of a CloudEvent", nats.Header{"ce-datacontenttype": {"a/b"}}, messaging.Message{Header: messaging.Header{"content-type": "a/b"}}, ""},
		{"plain content type wins", nats.Header{"ce-datacontenttype": {"a/b"}, "content-type": {"c/d"}}, messaging.Message{Header: messaging.Header{"content-type": "c/d"}}, ""},
		{"quoted", nats.Header{"ce-type": {`"a \"b\""`}}, messaging.Message{Type: `a "b"`}, ""},
		{"needlessly escaped", nats.Header{"ce-type": {"%61%6a"}}, messaging.Message{Type: "aj"}, ""},
		{"binary key", nats.Header{"ce-partitionkey": {"%00"}}, messaging.Message{Key: "AA=="}, ""},
		{"version", nats.Header{"ce-specversion": {"2.0"}}, messaging.Message{}, "ce-specversion"},
		{"time", nats.Header{"ce-time": {"now"}}, messaging.Message{}, "ce-time"},
		{"overlong UTF-8", nats.Header{"ce-id": {"%C0%A0"}}, messaging.Message{}, "ce-id"},
		{"cut short", nats.Header{"ce-id": {"a%2"}}, messaging.Message{}, "ce-id"},
		{"no hex", nats.Header{"ce-id": {"a%xx"}}, messaging.Message{}, "ce-id"},
		{"long id", nats.Header{"ce-id": {long}}, messaging.Message{}, "ce-id"},
		{"control in id", nats.Header{"ce-id": {"a%0Ab"}}, messaging.Message{}, "ce-id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := decode(&nats.Msg{Header: c.header}, "t")
			c.want.Topic, c.want.Body = "t", []byte{}
			require.Equal(t, c.want, *m)
			if c.fault == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fault)
			}
		})
	}
}

func TestParseAck(t *testing.T) {
	want := ackInfo{consumer: "g", deliveries: 2, stream: 30, seq: 4, time: time.Unix(0, 1767323045000000006).UTC(), pending: 7}
	for _, reply := range []string{
		"$JS.ACK.s.g.2.30.4.1767323045000000006.7",
		"$JS.ACK.hub.ACC.s.g.2.30.4.1767323045000000006.7",
		"$JS.ACK._.ACC.s.g.2.30.4.1767323045000000006.7.random",
		"$JS.ACK._.ACC.s.g.2.30.4.1767323045000000006.7.random.later.more",
	} {
		got, ok := parseAck(reply)
		require.True(t, ok, reply)
		require.Equal(t, want, got, reply)
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.", "$JS.ACK.s.g.2.30.4.5", "$JS.ACK.s.g.x.30.4.5.6", "$JS.ACK.s.g.2.30.4.5.-1"} {
		_, ok := parseAck(reply)
		require.False(t, ok, reply)
	}
}

func TestParsePubAck(t *testing.T) {
	for body, want := range map[string]string{
		`{"stream":"s","seq":1}`:                  "",
		`{"stream":"s","seq":1,"duplicate":true}`: "",
		`{"stream":"error","seq":1}`:              "",
		`{"seq":1,"stream":"s"}`:                  "",
		`{"type":"x","error":{"code":503,"description":"full","err_code":10023}}`: "full",
		`{"stream":"s","error":{"code":400,"description":"bad"}}`:                 "bad",
		`hello`: "none of JetStream",
		`{}`:    "none of JetStream",
		``:      "none of JetStream",
	} {
		err := parsePubAck(&nats.Msg{Data: []byte(body)})
		if want == "" {
			require.NoError(t, err, body)
		} else {
			require.ErrorContains(t, err, want, body)
		}
	}
	err := parsePubAck(&nats.Msg{Header: nats.Header{"Status": {"503"}}})
	require.ErrorIs(t, err, nats.ErrNoResponders)
}

// Whatever can be published comes back as it was; whatever comes in could be published again.
func FuzzWire(f *testing.F) {
	f.Add("id", "key", "type", "/source", "a-b", "value", []byte("body"))
	f.Add("i d", "", "%", "\"", "ce-x", "ä%41", []byte{})
	f.Add("\x00", "\xff", "a\nb", " x", "Nats-Msg-Id", "\r\n", []byte{0})
	f.Fuzz(func(t *testing.T, id, key, typ, source, name, value string, body []byte) {
		// Out and in.
		m := &messaging.Message{ID: id, Topic: "t", Key: key, Type: typ, Source: source, Body: body, Time: time.Unix(1, 2).UTC()}
		if name != "" {
			m.Header = messaging.Header{name: value}
		}
		if wire, _, err := encode(m, "t", id); err == nil {
			for k, v := range wire.Header {
				if k != name && (len(v) != 1 || strings.ContainsFunc(v[0], func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
					t.Fatalf("header %q is %q on the wire", k, v)
				}
			}
			portable := true
			for _, s := range []string{id, key, typ, source, value} {
				portable = portable && portableText(s) && len(s) <= maxField
			}
			if portable && name != "" {
				got, err := decode(wire, "t")
				require.NoError(t, err)
				if body == nil {
					m.Body = []byte{}
				}
				require.Equal(t, m, got)
			}
		}
		// In and out.
		got, _ := decode(&nats.Msg{Header: nats.Header{"ce-id": {id}, "ce-partitionkey": {key}, "ce-type": {typ}, "ce-source": {source}, name: {value}}, Data: body}, "t")
		for _, s := range []string{got.ID, got.Key, got.Type, got.Source} {
			if !portableText(s) || len(s) > maxField {
				t.Fatalf("%q cannot be published", s)
			}
		}
		if _, _, err := encode(got, "t", ""); err != nil {
			t.Fatalf("cannot be published again: %v", err)
		}
	})
}
