package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
)

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
