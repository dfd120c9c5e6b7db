package natsstore

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tandemgo/tandem/idempotency"
)

// version is the version of the record. A release reads what the one before it wrote: fields may be added, and a record
// of a version that is not known is an error, never an absent one.
const version = 1

const (
	stateClaimed = "claimed"
	stateDone    = "done"
)

// A record is one line of JSON, for people and for versions, and behind it the body of the result as it is. The key is
// there for operators; its identity is the subject.
type record struct {
	Version     int                 `json:"v"`
	State       string              `json:"state"`
	Scope       string              `json:"scope"`
	ID          string              `json:"id"`
	Token       string              `json:"token"`
	Fence       uint64              `json:"fence,omitempty"` // absent in the first record of an owner: its own revision
	Attempt     int                 `json:"attempt"`
	Fingerprint []byte              `json:"print,omitempty"`
	Lease       time.Duration       `json:"lease_ns,omitempty"`
	Retain      time.Duration       `json:"retain_ns,omitempty"` // of the claim, beyond its lease
	Kind        int                 `json:"kind,omitempty"`
	Meta        map[string][]string `json:"meta,omitempty"`
	Raw         [][2][]byte         `json:"raw_meta,omitempty"` // what of Meta is no text

	body []byte
}

// claim is the record of a new owner.
func claim(k idempotency.Key, o idempotency.BeginOptions) record {
	return record{
		Version: version, State: stateClaimed, Scope: k.Scope, ID: k.ID, Token: rand.Text(), Attempt: 1,
		Fingerprint: o.Fingerprint, Lease: o.Lease, Retain: o.Retain,
	}
}

// after is r in place of what e says. Of a claim that was lost it keeps the count and the fingerprint, which stays for
// life: a new owner may have none.
func (r record) after(e entry) record {
	r.Attempt = 1
	if e.present {
		r.Attempt, r.Fingerprint = e.record.Attempt+1, e.record.Fingerprint
	}
	return r
}

// done is the record of r after its owner has completed with res.
func (r record) done(res idempotency.Result) record {
	r.State, r.Lease, r.Retain = stateDone, 0, 0
	r.Kind, r.body = int(res.Kind), res.Body
	r.Meta, r.Raw = nil, nil
	for name, values := range res.Meta {
		if text(name, values) {
			if r.Meta == nil {
				r.Meta = make(map[string][]string, len(res.Meta))
			}
			r.Meta[name] = values
			continue
		}
		for _, v := range values {
			r.Raw = append(r.Raw, [2][]byte{[]byte(name), []byte(v)})
		}
	}
	return r
}

func text(name string, values []string) bool {
	for _, v := range values {
		if !utf8.ValidString(v) {
			return false
		}
	}
	return utf8.ValidString(name)
}

func (r record) result(at time.Time) idempotency.Result {
	res := idempotency.Result{Kind: idempotency.Kind(r.Kind), Meta: r.Meta, Body: r.body, At: at}
	for _, pair := range r.Raw {
		if res.Meta == nil {
			res.Meta = make(map[string][]string)
		}
		name := string(pair[0])
		res.Meta[name] = append(res.Meta[name], string(pair[1]))
	}
	return res
}

// mismatch reports whether a request with fingerprint print is another one.
func (r record) mismatch(print []byte) bool {
	return len(r.Fingerprint) > 0 && len(print) > 0 && !bytes.Equal(r.Fingerprint, print)
}

// ttl is how long the server keeps the record. It counts whole seconds, at least one.
func (r record) ttl() time.Duration { return wholeSeconds(r.Lease, r.Retain) }

func wholeSeconds(parts ...time.Duration) time.Duration {
	// The server adds the TTL to a time in nanoseconds; a century is far from the end of that.
	const most = 100 * 365 * 24 * time.Hour
	var sum time.Duration
	for _, d := range parts {
		sum += min(d, most-sum)
	}
	return max((sum + time.Second - 1).Truncate(time.Second), time.Second)
}

func (r record) encode() ([]byte, error) {
	var b bytes.Buffer
	b.Grow(512 + len(r.body))
	e := json.NewEncoder(&b) // ends with a newline
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, err
	}
	b.Write(r.body)
	return b.Bytes(), nil
}

func decode(b []byte) (record, error) {
	line, body, found := bytes.Cut(b, []byte{'\n'})
	var r record
	if err := json.Unmarshal(line, &r); err != nil || !found {
		return record{}, errors.New("natsstore: not a record of this store")
	}
	if r.Version < 1 || r.Version > version {
		return record{}, fmt.Errorf("natsstore: record of version %d, this release knows %d", r.Version, version)
	}
	if r.State != stateClaimed && r.State != stateDone {
		return record{}, errors.New("natsstore: record in an unknown state")
	}
	r.body = body
	return r, nil
}

// A token holds what a later step needs of the claim: the revision to compare, and the record to write again.
func token(revision uint64, r record) (string, error) {
	b, err := r.encode()
	if err != nil {
		return "", err
	}
	var t strings.Builder
	t.Write(binary.BigEndian.AppendUint64(nil, revision))
	t.Write(b)
	return t.String(), nil
}

func parseToken(t string) (revision uint64, r record, err error) {
	if len(t) < 8 {
		return 0, record{}, errors.New("natsstore: not a ticket of this store")
	}
	if r, err = decode([]byte(t[8:])); err != nil {
		return 0, record{}, errors.New("natsstore: not a ticket of this store")
	}
	return binary.BigEndian.Uint64([]byte(t[:8])), r, nil
}
