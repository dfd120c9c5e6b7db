package natsbus

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
)

const (
	dedupeWindow  = 2 * time.Minute
	defaultMaxAge = 7 * 24 * time.Hour
	// apiTimeout bounds one request to the JetStream API: while a leader is gone, a request waits as long as it may.
	apiTimeout = 5 * time.Second
)

// Config configures a Bus. The zero Config is right in production.
type Config struct {
	// Prefix is put before every subject, and so into every stream's name, to keep several users of one account apart:
	// letters, digits, '-', '_' and '.'. Zero: none.
	Prefix string
	Domain string // JetStream domain. Zero: the connection's own
	// MaxAge, MaxBytes and Replicas are what Provision gives a topic that names none. Zero: 7 days, no limit, 1.
	MaxAge   time.Duration
	MaxBytes int64
	Replicas int
	// ConfirmAcks waits for the server's answer to each acknowledgement. Zero: an acknowledgement that is lost costs a
	// redelivery and is not reported.
	ConfirmAcks bool
}

// A Bus is a messaging.Sender, Subscriber and Provisioner over JetStream. Any number of goroutines may use it at once.
// It never closes the connection. Its only goroutine is the one that nats.go runs for the inbox of a subscription that
// asks for messages. Its inbox for answers stays on the connection until that is closed: make one Bus, not many.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	c       Config
	api     string // prefix of the JetStream API's subjects
	replies *replies
}

// New returns a Bus over nc. The error joins every fault of the Config. It does no I/O.
func New(nc *nats.Conn, c Config) (*Bus, error) {
	var faults []error
	if nc == nil {
		faults = append(faults, errors.New("natsbus: no connection"))
	}
	if err := checkPrefix(c.Prefix); err != nil {
		faults = append(faults, err)
	}
	if c.Domain != "" && !isToken(c.Domain) {
		faults = append(faults, fmt.Errorf("natsbus: Domain %q is no single token", c.Domain))
	}
	if c.MaxAge < 0 || c.MaxBytes < 0 || c.Replicas < 0 || c.Replicas > 5 {
		faults = append(faults, fmt.Errorf("natsbus: MaxAge %v, MaxBytes %d or Replicas %d out of range", c.MaxAge, c.MaxBytes, c.Replicas))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if c.MaxAge == 0 {
		c.MaxAge = defaultMaxAge
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = -1
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	b := &Bus{nc: nc, c: c, api: "$JS.API.", replies: newReplies(nc)}
	var err error
	if c.Domain == "" {
		b.js, err = jetstream.New(nc)
	} else {
		b.api = "$JS." + c.Domain + ".API."
		b.js, err = jetstream.NewWithDomain(nc, c.Domain)
	}
	if err != nil {
		return nil, fmt.Errorf("natsbus: %w", err)
	}
	return b, nil
}

// Features implements messaging.Sender and messaging.Subscriber. MaxBytes is what the server said when the connection
// was made; zero before.
func (b *Bus) Features() messaging.Features {
	return messaging.Features{
		Confirm:    messaging.ConfirmBroker,
		Groups:     true,
		Durable:    true,
		Order:      messaging.OrderReader,
		Replay:     messaging.ReplayCursor,
		Attempts:   messaging.AttemptsBroker,
		Redelivery: messaging.NoTimeout, // as long as the stream keeps it: who provisions decides
		Delay:      b.c.MaxAge,
		Dedupe:     dedupeWindow,
		Lease:      true,
		Extend:     true,
		MaxBytes:   int(b.nc.MaxPayload()),
	}
}

// subject returns where messages of topic go.
func (b *Bus) subject(topic string) string { return b.c.Prefix + topic }

// stream returns the name of the stream that keeps topic. A stream's name cannot hold a dot; '=' is in no topic, so two
// topics never share a stream.
func (b *Bus) stream(topic string) string {
	return strings.ReplaceAll(b.subject(topic), ".", "=")
}

// checkPrefix returns an error unless every topic still is one behind prefix.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > 50 {
		return fmt.Errorf("natsbus: Prefix of %d bytes, at most 50", len(prefix))
	}
	for t := range strings.SplitSeq(strings.TrimSuffix(prefix, "."), ".") {
		if !isToken(t) {
			return fmt.Errorf("natsbus: Prefix %q: letters, digits, '-' and '_' between dots", prefix)
		}
	}
	return nil
}

// checkTopic refuses what must not reach the wire: a wildcard would be stored as it is, and a subject over the
// server's limit makes it close the whole connection.
func checkTopic(topic string) error {
	if err := messaging.CheckTopic(topic); err != nil {
		return err
	}
	for t := range strings.SplitSeq(topic, ".") {
		if !isToken(t) {
			return fmt.Errorf("%w: topic %q", messaging.ErrInvalid, topic)
		}
	}
	return nil
}

// isToken reports whether s is one token of letters, digits, '-' and '_'.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ok := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'; !ok {
			return false
		}
	}
	return s != ""
}
