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
