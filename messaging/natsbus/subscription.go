package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
)

const (
	// pullExpires is how long the server keeps a pull request: the traffic of an idle consumer.
	pullExpires = 30 * time.Second
	// heartbeat is how often the server says that a request still waits.
	heartbeat = time.Second
	// silence is when a server that owes a heartbeat counts as gone.
	silence = 5 * heartbeat / 2
	// watch is how often a waiting Receive looks after connection and heartbeats.
	watch = 250 * time.Millisecond
	// patience is how long a stream must be missing until the subscription ends for good. A server that shuts down slowly
	// has no streams, and is no reason to end a consumer.
	patience = 5 * time.Second
	// probeTimeout bounds the question whether the consumer still exists.
	probeTimeout = 2 * time.Second
	// withdrawTimeout bounds the wait for the server to have seen that nothing is asked for any more.
	withdrawTimeout = 2 * time.Second
)

// A subscription is one member of a group, or one reader. Its pull loop runs inside Receive: requests stay open on the
// server between two calls, so that the next messages are on their way while handlers work.
type subscription struct {
	b               *Bus
	spec            messaging.Spec
	stream, subject string

	consumer string        // guarded by mu where it is not Receive that reads it
	created  time.Time     // of the consumer: another one may have the same name
	ackWait  time.Duration // zero for a reader

	ch chan arrival // what has arrived and was not received; never full, as no more is asked for

	// Of Receive and Close alone.
	sub        *nats.Subscription
	inbox      string // of the open requests, with the dot
	requests   uint64
	valid      uint64 // the first request that the server may still know
	credit     credit
	reconnects uint64
	down       bool      // told the consumer that nothing comes
	heard      time.Time // when the server was last heard, or asked
	pause      time.Time // no request before
	missing    time.Time // since when the server does not know the stream or the consumer. Zero: it does
	place      place
	born       time.Time // of a reader: when its stream was made

	freed chan struct{} // capacity 1: bytes were settled

	mu     sync.Mutex
	held   map[uint64]held // delivered and not settled
	bytes  int             // of them
	ref    uint64
	sweep  int  // size of held at which expired ones are looked for
	gone   bool // the consumer was deleted: a verdict would hit the next one of its name
	closed bool
}

// An arrival is one message off the wire, and when it came: its lease runs since then.
type arrival struct {
	*nats.Msg
	at time.Time
}

// held is one delivery that the consumer has.
type held struct {
	reply string
	until time.Time
	size  int
}

// opened starts anew with the consumer that info describes.
func (s *subscription) opened(info *jetstream.ConsumerInfo) {
	s.mu.Lock()
	s.consumer = info.Name
	s.mu.Unlock()
	s.created = info.Created
	if s.spec.Group != "" {
		s.ackWait = info.Config.AckWait
	}
	s.place = place{stream: info.Delivered.Stream, seq: info.Delivered.Consumer}
}

// Receive implements messaging.Subscription.
func (s *subscription) Receive(ctx context.Context, into []messaging.Delivery) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	n, err := s.await(ctx, into)
	if err == nil && ctx.Err() == nil {
		return n, nil
	}
	// The consumer stops, or opens another subscription: what it hands back must not come here again.
	if werr := s.withdraw(ctx); n == 0 {
		return 0, errors.Join(err, werr)
	}
	return n, nil
}

// await waits for at least one delivery, an error or the end of ctx, and keeps pull requests open meanwhile.
func (s *subscription) await(ctx context.Context, into []messaging.Delivery) (int, error) {
	tick := time.NewTicker(watch)
	defer tick.Stop()
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := s.drain(ctx, into)
		if n > 0 {
			// Before the consumer goes to work: the next messages travel meanwhile. An error comes again.
			_ = s.ask(len(into) - n)
			return n, nil
		}
		if err == nil {
			err = s.look(ctx)
		}
		if err == nil {
			err = s.ask(len(into))
		}
		if err != nil {
			return 0, err
		}
		select {
		case m := <-s.ch:
			n, err := s.receive(ctx, m, into)
			if err != nil {
				return 0, err
			}
			if n > 0 {
				more, _ := s.drain(ctx, into[n:]) // an error comes again
				_ = s.ask(len(into) - n - more)
				return n + more, nil
			}
		case <-s.freed:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// drain takes what has already arrived, without waiting.
func (s *subscription) drain(ctx context.Context, into []messaging.Delivery) (int, error) {
	n := 0
	for n < len(into) {
		select {
		case m := <-s.ch:
			k, err := s.receive(ctx, m, into[n:])
			n += k
			if err != nil {
				s.place.doubt = true // looked at again before anything else is asked for
				return n, err
			}
		default:
			return n, nil
		}
	}
	return n, nil
}

// receive takes one message off the wire: a delivery, which it puts into into[0], or a word of the server.
func (s *subscription) receive(ctx context.Context, m arrival, into []messaging.Delivery) (int, error) {
	info, ok := parseAck(m.Reply)
	if !ok {
		return 0, s.status(ctx, m.Msg)
	}
	if info.consumer != s.consumer {
		return 0, nil // of the consumer that this reader had before
	}
	s.alive(ctx)
	size := m.Size()
	s.credit.got(size)
	if s.spec.Group == "" && s.place.hole(info) {
		// The server has sent something that did not arrive, and a reader has no redelivery.
		return 0, s.reread(ctx)
	}
	if s.spec.Group != "" && s.place.back(info) {
		// Of another consumer, which has the same name? Or has a server lost its newest state?
		if err := s.unchanged(ctx); err != nil {
			_ = s.b.nc.Publish(m.Reply, ackRelease) // else it comes again after its lease
			return 0, err
		}
	}
	if gap := s.place.saw(info); gap > 0 {
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Gap, Gap: gap})
	}
	var until time.Time
	if s.ackWait > 0 {
		until = m.at.Add(s.ackWait)
		if !time.Now().Before(until) {
			return 0, nil // it waited here longer than its lease: it is somebody else's by now
		}
	}
	into[0] = s.delivery(m.Msg, info, until, size)
	return 1, nil
}

// delivery makes a Delivery of m and remembers how to settle it.
func (s *subscription) delivery(m *nats.Msg, info ackInfo, until time.Time, size int) messaging.Delivery {
	msg, fault := decode(m, s.spec.Topic)
	if msg.ID == "" { // of a foreign producer
		msg.ID = m.Header.Get(nats.MsgIdHdr)
		if msg.ID == "" || len(msg.ID) > maxField || !portableText(msg.ID) {
			msg.ID = s.stream + "/" + strconv.FormatUint(info.stream, 10)
		}
	}
	if msg.Time.IsZero() {
		msg.Time = info.time
	}
	msg.Attempt = info.deliveries
	msg.Group = s.spec.Group
	msg.Cursor = messaging.Cursor(strconv.FormatUint(info.stream, 10))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ref++
	if len(s.held) >= max(s.sweep, 2*s.spec.Slots+64) {
		s.sweepLocked()
		s.sweep = 2 * len(s.held)
	}
	s.held[s.ref] = held{reply: m.Reply, until: until, size: size}
	s.bytes += size
	return messaging.Delivery{Message: msg, Malformed: fault, Until: until, Ref: s.ref}
}

// sweepLocked forgets deliveries whose lease ran out and that nobody settled.
func (s *subscription) sweepLocked() {
	now := time.Now()
	for ref, h := range s.held {
		if !h.until.IsZero() && !now.Before(h.until) {
			delete(s.held, ref)
			s.bytes -= h.size
		}
	}
}

// heldBytes returns the size of what is delivered and not settled; sweep looks for lost leases first.
func (s *subscription) heldBytes(sweep bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sweep {
		s.sweepLocked()
	}
	return s.bytes
}

// status takes a word of the server about one of the pull requests. Each has a reply subject of its own.
func (s *subscription) status(ctx context.Context, m *nats.Msg) error {
	number, ok := strings.CutPrefix(m.Subject, s.inbox)
	request, err := strconv.ParseUint(number, 36, 64)
	if known := ok && err == nil && request >= s.valid; !known {
		return nil // about a request that was forgotten
	}
	s.heard = time.Now()
	left, hasLeft := headerInt(m, "Nats-Pending-Messages")
	bytes, _ := headerInt(m, "Nats-Pending-Bytes")
	what := m.Header.Get("Description")
	switch code := m.Header.Get("Status"); {
	case code == "100":
		s.alive(ctx)
	case hasLeft:
		s.credit.returned(left, bytes)
		if strings.HasPrefix(what, "Message Size Exceeds MaxBytes") {
			s.credit.tooSmall(bytes)
		}
	case strings.HasPrefix(what, "Leadership Change"):
		s.forget()
	case code == "400":
		return fmt.Errorf("natsbus: the server refused a pull request: %s", what)
	default:
		// A deleted consumer, no responders, a server that shuts down, a limit that was changed: ask again, but not at
		// once, and look first whether the consumer still exists.
		s.forget()
		s.pause = time.Now().Add(watch)
		s.place.doubt = true
	}
	return nil
}

func headerInt(m *nats.Msg, name string) (int, bool) {
	n, err := strconv.Atoi(m.Header.Get(name))
	return n, err == nil
}

// look finds out whether the pull requests on the server are still worth anything, and makes new ones possible if not.
func (s *subscription) look(ctx context.Context) error {
	nc := s.b.nc
	switch {
	case nc.IsClosed():
		return connError(nats.ErrConnectionClosed)
	case !nc.IsConnected():
		s.lost(ctx, nats.ErrDisconnected)
		return nil
	}
	if n := nc.Stats().Reconnects; n != s.reconnects {
		s.lost(ctx, nats.ErrDisconnected)
		err := s.renew(ctx)
		s.reconnects = n
		if err == nil && !s.place.broken {
			s.alive(ctx)
		}
		return err
	}
	now := time.Now()
	if s.place.broken {
		if now.Before(s.pause) {
			return nil
		}
		return s.reread(ctx)
	}
	if now.Before(s.pause) || !s.place.doubt && (s.credit.asked == 0 || now.Sub(s.heard) < silence) {
		return nil
	}
	return s.probe(ctx)
}

// probe asks whether the durable still exists, after a silence or a refusal. A reader just takes another consumer.
func (s *subscription) probe(ctx context.Context) error {
	if !s.place.doubt {
		s.lost(ctx, errors.New("natsbus: no heartbeat from the server"))
	}
	if s.spec.Group == "" {
		// Not asked for: the consumer of a reader lives on one server, and where that is gone nobody answers.
		return s.reread(ctx)
	}
	pctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := s.b.js.Consumer(pctx, s.stream, s.consumer)
	noStream, noConsumer := errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		s.place.doubt, s.missing = false, time.Time{}
		if err := s.same(c.CachedInfo()); err != nil {
			return err
		}
		return s.renew(ctx)
	case noStream && s.confirmed(patience):
		return s.b.openError(s.spec.Topic, err)
	case noConsumer && s.confirmed(watch):
		return s.deleted()
	}
	s.lost(ctx, err)
	s.place.doubt = true
	s.pause = time.Now().Add(watch)
	return nil
}

// unchanged asks whether the durable still is the one that was opened. No answer is no error.
func (s *subscription) unchanged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := s.b.js.Consumer(ctx, s.stream, s.consumer)
	if err != nil {
		return nil // the next probe tells
	}
	return s.same(c.CachedInfo())
}

// same returns an error if info is not of the durable that was opened, or if that was changed such that it delivers other
// messages, or at other times, or refuses what is asked of it.
func (s *subscription) same(info *jetstream.ConsumerInfo) error {
	if !info.Created.Equal(s.created) {
		return s.deleted()
	}
	if diff := diffDurable(info.Config, s.b.durableConfig(s.spec), s.spec); len(diff) > 0 {
		return fmt.Errorf("natsbus: the consumer %s of stream %s was changed: %s", s.consumer, s.stream, strings.Join(diff, "; "))
	}
	return nil
}

// confirmed reports whether something has been missing on the server for d. One that is going down, or coming up, has
// nothing for a moment.
func (s *subscription) confirmed(d time.Duration) bool {
	if s.missing.IsZero() {
		s.missing = time.Now()
	}
	return time.Since(s.missing) >= d
}

// deleted ends the subscription of a group. Its deliveries are void, and may not be settled: a new consumer has the same
// name and counts from one again.
func (s *subscription) deleted() error {
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	return fmt.Errorf("natsbus: the consumer %s of stream %s was deleted", s.consumer, s.stream)
}

// lost and alive tell the consumer, once each, that nothing comes and that something comes again.
func (s *subscription) lost(ctx context.Context, err error) {
	if !s.down {
		s.down = true
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Disconnected, Err: err})
	}
}

func (s *subscription) alive(ctx context.Context) {
	s.heard, s.missing = time.Now(), time.Time{}
	s.place.doubt = false
	if s.down {
		s.down = false
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Reconnected})
	}
}

// forget drops the open requests, which the server does not know any more.
func (s *subscription) forget() {
	s.credit.reset()
	s.valid = s.requests + 1
}

// renew drops the open requests, which the server may still know: it gets no answer for their inbox any more. A reader
// may have missed something and reads again from its last message.
func (s *subscription) renew(ctx context.Context) error {
	if s.spec.Group == "" {
		return s.reread(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
	defer cancel()
	// An error means that the server did not answer: what it had sent comes again after the lease.
	_ = s.end(ctx)
	return nil
}

// reread gives a reader a new consumer that begins after the last message it has seen.
func (s *subscription) reread(ctx context.Context) error {
	s.forget()
	if s.sub != nil {
		_ = s.sub.Unsubscribe() // only fails where the connection is gone
		s.sub = nil
	}
	st, info, err := s.resume(ctx)
	if isPermanent(err) && ctx.Err() == nil && s.confirmed(patience) {
		return err
	}
	if err != nil { // and again, until it succeeds
		s.place.broken = true
		s.pause = time.Now().Add(watch)
		if ctx.Err() == nil {
			s.lost(ctx, err)
		}
		return nil
	}
	last := s.lastIn(st)
	s.opened(info)
	s.born, s.place.stream = st.Created, last
	s.heard, s.missing = time.Now(), time.Time{}
	return nil
}

// resume creates a consumer that goes on after the last message.
func (s *subscription) resume(ctx context.Context) (*jetstream.StreamInfo, *jetstream.ConsumerInfo, error) {
	st, err := s.b.streamInfo(ctx, s.spec.Topic)
	if err != nil {
		return nil, nil, err
	}
	info, err := s.b.createReader(ctx, s.spec.Topic, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: s.lastIn(st) + 1,
	})
	return st, info, err
}

// lastIn returns the sequence of the last message that was read, in the stream as it is now. Nothing was read of a stream
// that was made again. One without replicas may have lost its newest messages, and gives their sequences to others.
func (s *subscription) lastIn(st *jetstream.StreamInfo) uint64 {
	switch {
	case !st.Created.Equal(s.born):
		return 0
	case st.Config.Replicas <= 1:
		return min(s.place.stream, st.State.LastSeq)
	}
	return s.place.stream
}

func isPermanent(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent()
}

// ask sends a pull request if one is due for free slots.
func (s *subscription) ask(free int) error {
	if free <= 0 || s.place.doubt || s.place.broken || !s.b.nc.IsConnected() || time.Now().Before(s.pause) {
		return nil
	}
	if s.sub == nil {
		inbox := s.b.nc.NewInbox() + "."
		// Not ChanSubscribe: on such a subscription AutoUnsubscribe is a data race inside of nats.go.
		sub, err := s.b.nc.Subscribe(inbox+"*", func(m *nats.Msg) { s.ch <- arrival{m, time.Now()} })
		if err != nil {
			return connError(err)
		}
		s.sub, s.inbox = sub, inbox
		s.forget()
	}
	if s.credit.asked == 0 {
		s.heard = time.Now()
	}
	g, due := s.credit.ask(free, s.heldBytes(false))
	if !due && s.credit.asked == 0 { // short of bytes: those of lost leases are free again
		g, due = s.credit.ask(free, s.heldBytes(true))
	}
	if !due {
		return nil
	}
	s.requests++
	req := make([]byte, 0, 96)
	req = append(req, `{"batch":`...)
	req = strconv.AppendInt(req, int64(g.batch), 10)
	if g.bytes > 0 {
		req = append(req, `,"max_bytes":`...)
		req = strconv.AppendInt(req, int64(g.bytes), 10)
	}
	req = append(req, `,"expires":`...)
	req = strconv.AppendInt(req, int64(pullExpires), 10)
	req = append(req, `,"idle_heartbeat":`...)
	req = strconv.AppendInt(req, int64(heartbeat), 10)
	req = append(req, '}')
	if err := s.b.nc.PublishRequest(s.next(), s.inbox+strconv.FormatUint(s.requests, 36), req); err != nil {
		return connError(err)
	}
	return nil
}

// withdraw ends all pull requests and hands back what has arrived for them. When it returns without an error, the server
// has seen both.
func (s *subscription) withdraw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	err := s.end(ctx)
	if s.handBack() > 0 && err == nil {
		err = s.b.nc.FlushWithContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("natsbus: withdraw: %w", err)
	}
	return nil
}

// end ends the inbox of the open requests, which the server then drops, and forgets them. What is on its way arrives in
// ch first. nats.go throws away what comes for an inbox from the moment it is ended; its Drain does not, but runs in a
// goroutine and on pooled timers, which a synctest bubble does not survive. So the server ends the inbox: after as many
// messages more as may be on their way, and requests that it refuses, each with one message, make that many come.
func (s *subscription) end(ctx context.Context) error {
	sub, nc := s.sub, s.b.nc
	on := s.credit.asked + endSlack
	s.sub = nil
	s.forget()
	if sub == nil {
		return nil
	}
	n, err := sub.Delivered()
	if err != nil || !nc.IsConnected() || nc.Stats().Reconnects != s.reconnects {
		return ignoreClosed(sub.Unsubscribe()) // nothing can be on its way, or it was lost with the connection
	}
	closed := sub.StatusChanged(nats.SubscriptionClosed)
	if err := sub.AutoUnsubscribe(int(n) + on); err != nil {
		return ignoreClosed(err)
	}
	for range on {
		if err := nc.PublishRequest(s.next(), s.inbox+"0", []byte("{")); err != nil {
			return ignoreClosed(sub.Unsubscribe())
		}
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return nil
		case <-tick.C:
			if nc.IsConnected() && nc.Stats().Reconnects == s.reconnects {
				continue
			}
			return ignoreClosed(sub.Unsubscribe())
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), ignoreClosed(sub.Unsubscribe()))
		}
	}
}

// endSlack is for words of the server that may be on their way beside messages.
const endSlack = 16

func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// next is the subject of pull requests.
func (s *subscription) next() string {
	return s.b.api + "CONSUMER.MSG.NEXT." + s.stream + "." + s.consumer
}

// handBack returns what nobody has seen to the group.
func (s *subscription) handBack() int {
	n := 0
	for {
		select {
		case m := <-s.ch:
			info, ok := parseAck(m.Reply)
			switch {
			case !ok:
			case s.spec.Group == "":
				if info.consumer == s.consumer {
					s.place.broken = true // read again from the last message that was delivered
				}
			case s.gone || !s.b.nc.IsConnected(): // it would be sent much later, for another delivery
			case s.b.nc.Publish(m.Reply, ackRelease) == nil:
				n++
			}
		default:
			return n
		}
	}
}

// Close implements messaging.Subscription.
func (s *subscription) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.withdraw(ctx)
	if s.spec.Group == "" && s.b.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
		defer cancel()
		// The server would forget it anyway; an error changes nothing.
		_ = s.b.js.DeleteConsumer(ctx, s.stream, s.consumer)
	}
	return err
}

// Lag implements messaging.Lagger.
func (s *subscription) Lag(ctx context.Context) (messaging.Lag, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s.mu.Lock()
	consumer := s.consumer
	s.mu.Unlock()
	c, err := s.b.js.Consumer(ctx, s.stream, consumer)
	if err != nil {
		return messaging.Lag{}, s.b.openError(s.spec.Topic, err)
	}
	info := c.CachedInfo()
	return messaging.Lag{Messages: int64(info.NumPending), Unacked: int64(info.NumAckPending)}, nil
}
