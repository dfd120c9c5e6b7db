package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
)

// What the server understands as a verdict.
var (
	ackDone    = []byte("+ACK")
	ackRelease = []byte("-NAK")
	ackExtend  = []byte("+WPI")
	ackRefuse  = []byte("+TERM") // never again, and an advisory tells of it
)

// errSettled is the answer to a second verdict, or to one on a delivery that never was.
var errSettled = fmt.Errorf("natsbus: settled already: %w", messaging.ErrLeaseLost)

// Settle implements messaging.Subscription. It waits for a lost connection as long as ctx allows. Nothing is sent for a
// delivery whose lease has ended: the server would take it for the verdict on the newer delivery of the same message.
func (s *subscription) Settle(ctx context.Context, list []messaging.Settlement) error {
	if s.spec.Group == "" {
		return s.settleReader(list)
	}
	waitErr := connected(ctx, s.b.nc)
	confirm := s.b.c.ConfirmAcks
	var c *caller
	if confirm && waitErr == nil {
		var err error
		if c, err = s.b.replies.begin(); err != nil {
			return err
		}
		defer s.b.replies.end(c)
	}
	open := 0
	for i := range list {
		e := &list[i]
		h, err := s.find(e.Ref)
		switch {
		case err != nil:
			e.Err = err
			continue
		case waitErr != nil:
			e.Err = fmt.Errorf("natsbus: not settled: %w", waitErr)
			continue
		}
		body, err := verdict(*e)
		if err != nil {
			e.Err = err
			continue
		}
		switch {
		case e.Action == messaging.Extend:
			e.Until, e.Err = s.extend(e.Ref, h)
		case confirm:
			e.Err = errLost // until answered
			if err := s.b.nc.PublishRequest(h.reply, c.reply(i), body); err != nil {
				e.Err = connError(err)
				continue
			}
			open++
		default:
			if err := s.b.nc.Publish(h.reply, body); err != nil {
				e.Err = connError(err)
				continue
			}
			e.Err = nil
			s.drop(e.Ref)
		}
	}
	if open > 0 {
		return s.confirm(ctx, c, list, open)
	}
	return nil
}

// confirm waits for the server's answers.
func (s *subscription) confirm(ctx context.Context, c *caller, list []messaging.Settlement, open int) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for open > 0 {
		got, err := s.b.replies.wait(ctx, c, tick.C)
		if err != nil {
			for i := range list {
				if errors.Is(list[i].Err, errLost) {
					list[i].Err = fmt.Errorf("natsbus: not confirmed: %w", err)
				}
			}
			return nil // each has its own answer
		}
		for _, a := range got {
			if a.index < 0 || a.index >= len(list) {
				continue
			}
			e := &list[a.index]
			if !errors.Is(e.Err, errLost) {
				continue
			}
			open--
			if isStatus(a.msg, "503") {
				e.Err = fmt.Errorf("natsbus: not settled: %w", nats.ErrNoResponders)
				continue
			}
			e.Err = nil
			s.drop(e.Ref)
		}
	}
	return nil
}

// extend starts the lease anew.
func (s *subscription) extend(ref uint64, h held) (time.Time, error) {
	// Before it is sent: the server's lease begins later.
	until := time.Now().Add(s.ackWait)
	if err := s.b.nc.Publish(h.reply, ackExtend); err != nil {
		return time.Time{}, connError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.held[ref]; ok {
		h.until = until
		s.held[ref] = h
	}
	return until, nil
}

// verdict returns how the server names e.
func verdict(e messaging.Settlement) ([]byte, error) {
	switch e.Action {
	case messaging.Done:
		return ackDone, nil
	case messaging.Refuse:
		return ackRefuse, nil
	case messaging.Extend:
		return ackExtend, nil
	case messaging.Retry, messaging.Release:
		if e.Delay <= 0 {
			return ackRelease, nil
		}
		b := append([]byte(nil), `-NAK {"delay":`...)
		b = strconv.AppendInt(b, int64(e.Delay), 10)
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("%w: action %d", messaging.ErrUnsupported, e.Action)
}

// find returns the delivery of ref if it may still be settled.
func (s *subscription) find(ref uint64) (held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[ref]
	switch {
	case s.closed:
		return held{}, messaging.ErrClosed
	case !ok:
		return held{}, errSettled
	case s.gone:
		return held{}, messaging.ErrLeaseLost
	case !time.Now().Before(h.until):
		delete(s.held, ref)
		s.bytes -= h.size
		s.signal()
		return held{}, messaging.ErrLeaseLost
	}
	return h, nil
}

// drop forgets a delivery that is settled.
func (s *subscription) drop(ref uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[ref]
	if ok {
		delete(s.held, ref)
		s.bytes -= h.size
		s.signal()
	}
	return ok
}

// signal wakes a Receive that waits for bytes.
func (s *subscription) signal() {
	if s.spec.MaxBytes <= 0 {
		return
	}
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// settleReader settles for a reader, which keeps no place on the server: there is nothing to acknowledge, and nothing
// comes a second time.
func (s *subscription) settleReader(list []messaging.Settlement) error {
	for i := range list {
		e := &list[i]
		switch e.Action {
		case messaging.Extend:
			e.Err = nil
		case messaging.Done, messaging.Release, messaging.Refuse:
			if e.Err = nil; !s.drop(e.Ref) {
				e.Err = errSettled
			}
		default:
			e.Err = fmt.Errorf("%w: redelivery to a reader without a group", messaging.ErrUnsupported)
		}
	}
	return nil
}
