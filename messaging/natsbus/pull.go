package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

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
