package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// Send implements messaging.Sender: it publishes all messages without waiting in between, except for the answer to an
// earlier message of the same topic and key, then waits for the answers. It waits for a lost connection as long as ctx
// allows before it publishes; a connection lost afterwards leaves the fate of what was open Unknown.
func (b *Bus) Send(ctx context.Context, m []*messaging.Message) error {
	f := newFlight(b, m)
	f.encode()
	if len(f.ready) > 0 {
		f.run(ctx)
	}
	f.nameUnknownTopics(ctx)
	if len(f.failed) == 0 {
		return nil
	}
	return f.error()
}

// A flight is one call of Send.
type flight struct {
	b    *Bus
	m    []*messaging.Message
	wire []*nats.Msg
	// next is the message that waits for this one: the next of its topic and key. Zero: none.
	next   []int
	ready  []int // may be published, in order
	at     int   // of ready: what was not published yet
	open   int   // published, not answered
	sent   []bool
	done   []bool
	failed map[int]messaging.Failure
	orphan []int // answered with "no responders"
}

func newFlight(b *Bus, m []*messaging.Message) *flight {
	return &flight{
		b: b, m: m, wire: make([]*nats.Msg, len(m)), ready: make([]int, 0, len(m)),
		sent: make([]bool, len(m)), done: make([]bool, len(m)),
	}
}

// encode prepares every message and chains those that must be stored in order. What cannot travel fails here, without
// harm to the connection.
func (f *flight) encode() {
	limit := int(f.b.nc.MaxPayload())
	var last map[lane]int
	for i, m := range f.m {
		if m.Key != "" && len(f.m) > 1 {
			if last == nil {
				last, f.next = make(map[lane]int, len(f.m)), make([]int, len(f.m))
			}
			l := lane{m.Topic, m.Key}
			if before, ok := last[l]; ok {
				f.next[before] = i
			} else {
				f.ready = append(f.ready, i)
			}
			last[l] = i
		} else {
			f.ready = append(f.ready, i)
		}
	}
	for i, m := range f.m {
		if f.done[i] {
			continue // an earlier one of its key has failed
		}
		wire, err := f.b.wire(m, limit)
		if err != nil {
			f.fail(i, retry.Permanent(err), false)
			continue
		}
		f.wire[i] = wire
	}
}

type lane struct{ topic, key string }

// wire returns m ready to be sent, or why it never can be.
func (b *Bus) wire(m *messaging.Message, limit int) (*nats.Msg, error) {
	if err := checkTopic(m.Topic); err != nil {
		return nil, err
	}
	if !m.NotBefore.IsZero() {
		return nil, fmt.Errorf("%w: NotBefore over JetStream", messaging.ErrUnsupported)
	}
	wire, size, err := encode(m, b.subject(m.Topic), messaging.DedupeID(m))
	if err != nil {
		return nil, err
	}
	if limit > 0 && size > limit {
		return nil, &messaging.TooLargeError{Size: size, Limit: limit}
	}
	return wire, nil
}

// run publishes and collects answers until every message is done.
func (f *flight) run(ctx context.Context) {
	if ctx.Err() != nil {
		f.failRest(context.Cause(ctx))
		return
	}
	if err := connected(ctx, f.b.nc); err != nil {
		f.failRest(err)
		return
	}
	r := f.b.replies
	c, err := r.begin()
	if err != nil {
		f.failRest(err)
		return
	}
	defer r.end(c)
	defer func() {
		for range f.open {
			r.release()
		}
	}()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := f.publish(ctx, c); err != nil {
			f.failRest(err)
			return
		}
		if f.open == 0 && f.at == len(f.ready) {
			return
		}
		got, err := r.wait(ctx, c, tick.C)
		if err != nil {
			f.failRest(err)
			return
		}
		for _, a := range got {
			f.answered(a.index, a.msg)
		}
	}
}

// publish hands what is ready to the connection, as far as the window of the Bus has room; it waits for room only if no
// answer of this call could make some.
func (f *flight) publish(ctx context.Context, c *caller) error {
	for ; f.at < len(f.ready); f.at++ {
		i := f.ready[f.at]
		if f.done[i] {
			continue
		}
		ok, err := f.b.replies.acquire(ctx, f.open == 0)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		f.wire[i].Reply = c.reply(i)
		if err := f.b.nc.PublishMsg(f.wire[i]); err != nil {
			f.b.replies.release()
			f.fail(i, publishError(err, f.b.nc, f.wire[i]), false)
			continue
		}
		f.sent[i] = true
		f.open++
	}
	return nil
}

// publishError says why nats.go did not take m. It had no limit to check against while there was no connection yet.
func publishError(err error, nc *nats.Conn, m *nats.Msg) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return retry.Permanent(&messaging.TooLargeError{Size: m.Size() - len(m.Subject) - len(m.Reply), Limit: int(nc.MaxPayload())})
	}
	return connError(err)
}

// answered takes the server's answer to message i.
func (f *flight) answered(i int, m *nats.Msg) {
	if i < 0 || i >= len(f.m) || f.done[i] || !f.sent[i] {
		return
	}
	f.open--
	f.b.replies.release()
	switch err := parsePubAck(m); {
	case errors.Is(err, errInProcess):
		f.fail(i, err, true)
	case errors.Is(err, nats.ErrNoResponders):
		f.orphan = append(f.orphan, i)
		f.fail(i, err, false)
	case err != nil:
		f.fail(i, err, false)
	default:
		f.done[i] = true
		if f.next != nil && f.next[i] > 0 {
			f.ready = append(f.ready, f.next[i])
		}
	}
}

// fail ends message i, and with it the later ones of its key.
func (f *flight) fail(i int, err error, unknown bool) {
	if f.failed == nil {
		f.failed = map[int]messaging.Failure{}
	}
	f.done[i] = true
	f.failed[i] = messaging.Failure{Index: i, Unknown: unknown, Err: err}
	if f.next == nil {
		return
	}
	for n := f.next[i]; n > 0; n = f.next[n] {
		if !f.done[n] {
			f.done[n] = true
			f.failed[n] = messaging.Failure{Index: n, Err: fmt.Errorf("natsbus: an earlier message of its key was not stored: %w", err)}
		}
	}
}

// failRest ends every message that has no answer: those that were sent may be stored.
func (f *flight) failRest(err error) {
	for i := range f.m {
		if !f.done[i] {
			f.fail(i, err, f.sent[i])
		}
	}
}

// nameUnknownTopics tells a topic that nobody provisioned from a stream that has no leader just now: both answer "no
// responders".
func (f *flight) nameUnknownTopics(ctx context.Context) {
	var known map[string]error
	for _, i := range f.orphan {
		topic := f.m[i].Topic
		err, ok := known[topic]
		if !ok {
			err = f.b.lookup(ctx, topic)
			if known == nil {
				known = map[string]error{}
			}
			known[topic] = err
		}
		fail := f.failed[i]
		fail.Err = err
		f.failed[i] = fail
	}
}

// lookup says why nobody answered for topic.
func (b *Bus) lookup(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, err := b.js.StreamNameBySubject(ctx, b.subject(topic))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// Asked twice: a server that is going down, or coming up, may have no streams for a moment.
		select {
		case <-time.After(watch):
			_, err = b.js.StreamNameBySubject(ctx, b.subject(topic))
		case <-ctx.Done():
		}
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return retry.Permanent(fmt.Errorf("natsbus: %w: %q", messaging.ErrUnknownTopic, topic))
	case err != nil:
		return fmt.Errorf("natsbus: JetStream does not answer: %w", err)
	}
	return fmt.Errorf("natsbus: the stream of %q has no leader: %w", topic, nats.ErrNoResponders)
}

func (f *flight) error() error {
	e := &messaging.PublishError{Failed: make([]messaging.Failure, 0, len(f.failed))}
	for i := range f.m {
		if fail, ok := f.failed[i]; ok {
			e.Failed = append(e.Failed, fail)
		}
	}
	return e
}

// pubAck is the answer of a stream. A refusal carries error, a confirmation stream and seq.
type pubAck struct {
	Error  *jetstream.APIError `json:"error"`
	Stream string              `json:"stream"`
	Seq    uint64              `json:"seq"`
}

// parsePubAck returns nil if m says that the message is stored. A duplicate is stored.
func parsePubAck(m *nats.Msg) error {
	if len(m.Data) == 0 && isStatus(m, "503") {
		return nats.ErrNoResponders
	}
	// The answer to a message that was stored is always the same few fields: no need to decode them.
	if bytes.HasPrefix(m.Data, []byte(`{"stream":"`)) && !bytes.Contains(m.Data, []byte(`"error"`)) {
		return nil
	}
	var a pubAck
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return fmt.Errorf("natsbus: the answer is none of JetStream: %w", err)
	}
	if a.Error != nil {
		return apiError(a.Error)
	}
	if a.Stream == "" {
		return errors.New("natsbus: the answer is none of JetStream")
	}
	return nil
}

// errInProcess is the answer of a replicated stream to a message that it has got before and not yet stored: the first
// try was not in vain, but may still be.
var errInProcess = errors.New("natsbus: an earlier try is still in process")

// duplicateInProcess is the server's JSStreamDuplicateMessageConflict, a 409.
const duplicateInProcess jetstream.ErrorCode = 10158

// apiError marks what another try cannot mend: the server calls that a bad request.
func apiError(e *jetstream.APIError) error {
	if e.ErrorCode == duplicateInProcess {
		return errInProcess
	}
	err := fmt.Errorf("natsbus: refused by the stream: %w", e)
	if e.Code >= 400 && e.Code < 500 && e.Code != 408 && e.Code != 429 {
		return retry.Permanent(err)
	}
	return err
}

func isStatus(m *nats.Msg, code string) bool { return m.Header.Get("Status") == code }
