package natsbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

const (
	// minAckPending is the least that a new durable allows unacknowledged: the bound is one for all members of the group,
	// while each member asks for no more than its own free slots.
	minAckPending = 10000
	// readerIdle is when the server forgets the consumer of a reader that has stopped asking.
	readerIdle = time.Minute
	// minLease is what the server can keep.
	minLease = 100 * time.Millisecond
)

// Open implements messaging.Subscriber. With a Group it creates the durable, or compares the one that exists; it never
// changes one. See the package comment for what is compared.
func (b *Bus) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	if err := b.checkSpec(s); err != nil {
		return nil, retry.Permanent(err)
	}
	if err := connected(ctx, b.nc); err != nil {
		return nil, err
	}
	sub := &subscription{
		b: b, spec: s, stream: b.stream(s.Topic), subject: b.subject(s.Topic),
		ch:         make(chan arrival, 2*s.Slots+1024),
		freed:      make(chan struct{}, 1),
		held:       map[uint64]held{},
		credit:     credit{limit: s.MaxBytes},
		reconnects: b.nc.Stats().Reconnects,
	}
	var info *jetstream.ConsumerInfo
	var err error
	if s.Group != "" {
		info, err = b.openDurable(ctx, s)
	} else {
		// Before the consumer: if the stream is made again in between, that will be noticed.
		var st *jetstream.StreamInfo
		if st, err = b.streamFor(ctx, s); err == nil {
			sub.born = st.Created
			info, err = b.createReader(ctx, s.Topic, startPolicy(s.Start))
		}
	}
	if err != nil {
		return nil, err
	}
	sub.opened(info)
	if seq, ok, _ := startSequence(s.Start); ok && s.Group == "" {
		sub.place.stream = min(sub.place.stream, seq) // what is gone between the cursor and the first message is a gap
	}
	return sub, nil
}

func (b *Bus) checkSpec(s messaging.Spec) error {
	if err := checkTopic(s.Topic); err != nil {
		return err
	}
	if s.Group != "" && !isToken(s.Group) {
		return fmt.Errorf("%w: group %q: letters, digits, '-' and '_'", messaging.ErrInvalid, s.Group)
	}
	if s.Group != "" && s.Ordered {
		return fmt.Errorf("%w: Ordered with a Group over JetStream: a second member or a retry breaks the order", messaging.ErrUnsupported)
	}
	if s.Slots <= 0 {
		return fmt.Errorf("%w: no slots", messaging.ErrInvalid)
	}
	if s.Group != "" && s.Lease < minLease {
		return fmt.Errorf("%w: lease of %v, at least %v", messaging.ErrUnsupported, s.Lease, minLease)
	}
	_, _, err := startSequence(s.Start)
	return err
}

// startSequence returns the sequence after which s begins, if it is given by a cursor. A stream is one log: there is
// only one.
func startSequence(s messaging.Start) (uint64, bool, error) {
	c := s.Cursors()
	if len(c) == 0 {
		return 0, false, nil
	}
	if len(c) > 1 {
		return 0, false, fmt.Errorf("%w: %d cursors of one log", messaging.ErrUnsupported, len(c))
	}
	seq, err := strconv.ParseUint(string(c[0]), 10, 63)
	if err != nil {
		return 0, false, fmt.Errorf("%w: cursor %q", messaging.ErrInvalid, c[0])
	}
	return seq, true, nil
}

// startPolicy returns how the server names s.
func startPolicy(s messaging.Start) jetstream.ConsumerConfig {
	if t, ok := s.Time(); ok {
		return jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &t}
	}
	if seq, ok, _ := startSequence(s); ok {
		return jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: seq + 1}
	}
	if s.IsLatest() {
		return jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy}
	}
	return jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
}

// openDurable returns the durable of the group, as it is on the server.
func (b *Bus) openDurable(ctx context.Context, s messaging.Spec) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	stream, want := b.stream(s.Topic), b.durableConfig(s)
	c, err := b.js.Consumer(ctx, stream, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if _, err := b.streamFor(ctx, s); err != nil {
			return nil, err
		}
		c, err = b.js.CreateConsumer(ctx, stream, want)
		if errors.Is(err, jetstream.ErrConsumerExists) { // another member was faster
			c, err = b.js.Consumer(ctx, stream, want.Durable)
		}
	}
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, retry.Permanent(fmt.Errorf("natsbus: consumer %s of stream %s is a push consumer, wanted a pull consumer", want.Durable, stream))
	}
	if err != nil {
		return nil, b.openError(s.Topic, err)
	}
	info := c.CachedInfo()
	// Also what was just created: limits of the stream or of an older server change what was asked for.
	if diff := diffDurable(info.Config, want, s); len(diff) > 0 {
		return nil, retry.Permanent(fmt.Errorf("natsbus: consumer %s of stream %s has other settings: %s", want.Durable, stream, strings.Join(diff, "; ")))
	}
	return info, nil
}

func (b *Bus) durableConfig(s messaging.Spec) jetstream.ConsumerConfig {
	c := startPolicy(s.Start)
	c.Durable = s.Group
	c.AckPolicy = jetstream.AckExplicitPolicy
	c.AckWait = s.Lease
	c.MaxDeliver = -1 // messaging counts; a message over the server's limit would stay for ever, undelivered
	c.FilterSubject = b.subject(s.Topic)
	c.ReplayPolicy = jetstream.ReplayInstantPolicy
	c.MaxAckPending = max(minAckPending, 2*(s.Slots+s.Parked))
	return c
}

// diffDurable names every setting in which have is not what want asks for. Where a group begins is no concern of one
// that has a place; the bound on unacknowledged messages need only have room for this member.
func diffDurable(have, want jetstream.ConsumerConfig, s messaging.Spec) []string {
	var d diffs
	need := s.Slots + s.Parked
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	d.add("ack policy", have.AckPolicy == want.AckPolicy, have.AckPolicy, want.AckPolicy)
	d.add("ack wait", have.AckWait == want.AckWait, have.AckWait, want.AckWait)
	d.add("max deliver", have.MaxDeliver == want.MaxDeliver, have.MaxDeliver, want.MaxDeliver)
	d.add("backoff", len(have.BackOff) == 0, have.BackOff, "none")
	d.add("filter", slices.Equal(filters, []string{want.FilterSubject}), filters, want.FilterSubject)
	d.add("replay", have.ReplayPolicy == want.ReplayPolicy, have.ReplayPolicy, want.ReplayPolicy)
	d.add("max ack pending", have.MaxAckPending <= 0 || have.MaxAckPending >= need, have.MaxAckPending, fmt.Sprintf("at least %d", need))
	d.add("headers only", !have.HeadersOnly, have.HeadersOnly, false)
	d.add("inactive threshold", have.InactiveThreshold == 0, have.InactiveThreshold, "none")
	d.add("max request batch", have.MaxRequestBatch <= 0 || have.MaxRequestBatch >= s.Slots, have.MaxRequestBatch, fmt.Sprintf("at least %d", s.Slots))
	d.add("max request expires", have.MaxRequestExpires == 0 || have.MaxRequestExpires >= pullExpires, have.MaxRequestExpires, fmt.Sprintf("at least %v", pullExpires))
	d.add("max request bytes", have.MaxRequestMaxBytes <= 0 || s.MaxBytes > 0 && have.MaxRequestMaxBytes >= s.MaxBytes, have.MaxRequestMaxBytes, fmt.Sprintf("at least %d", s.MaxBytes))
	d.add("priority policy", have.PriorityPolicy == want.PriorityPolicy, have.PriorityPolicy, want.PriorityPolicy)
	return d
}

// streamFor returns the stream of s, or an error where the cursor of s cannot be one of it. The server would wait until
// the stream gets there, and skip everything before.
func (b *Bus) streamFor(ctx context.Context, s messaging.Spec) (*jetstream.StreamInfo, error) {
	st, err := b.streamInfo(ctx, s.Topic)
	if err != nil {
		return nil, err
	}
	if seq, ok, _ := startSequence(s.Start); ok && seq > st.State.LastSeq {
		return nil, retry.Permanent(fmt.Errorf("natsbus: open %q: %w: cursor %d is behind the last message, %d", s.Topic, messaging.ErrInvalid, seq, st.State.LastSeq))
	}
	return st, nil
}

func (b *Bus) streamInfo(ctx context.Context, topic string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	st, err := b.js.Stream(ctx, b.stream(topic))
	if err != nil {
		return nil, b.openError(topic, err)
	}
	return st.CachedInfo(), nil
}

// createReader creates a consumer for one reader: it has no acknowledgements, lives in memory and is forgotten by the
// server soon after the reader has stopped.
func (b *Bus) createReader(ctx context.Context, topic string, start jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	start.AckPolicy = jetstream.AckNonePolicy
	start.FilterSubject = b.subject(topic)
	start.InactiveThreshold = readerIdle
	start.MemoryStorage = true
	start.Replicas = 1
	c, err := b.js.CreateConsumer(ctx, b.stream(topic), start)
	if err != nil {
		return nil, b.openError(topic, err)
	}
	return c.CachedInfo(), nil
}

// openError says what err of the JetStream API means for an Open, and whether another one could succeed.
func (b *Bus) openError(topic string, err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return retry.Permanent(fmt.Errorf("natsbus: %w: %q", messaging.ErrUnknownTopic, topic))
	}
	if e, ok := errors.AsType[*jetstream.APIError](err); ok && e.Code >= 400 && e.Code < 500 && e.Code != 404 && e.Code != 408 && e.Code != 429 {
		return retry.Permanent(fmt.Errorf("natsbus: open %q: %w", topic, err))
	}
	if errors.Is(err, nats.ErrConnectionClosed) {
		return connError(err)
	}
	return fmt.Errorf("natsbus: open %q: %w", topic, err)
}
