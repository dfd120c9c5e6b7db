package natsbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// defaultPending is how many messages a subscription of a Core holds before it drops.
const defaultPending = 65536

// pendingBytes bounds them in bytes, too, where the consumer asks for less.
const pendingBytes = 64 << 20

// CoreConfig configures a Core. The zero CoreConfig is right in production.
type CoreConfig struct {
	Prefix  string // put before every subject. Zero: none
	Pending int    // messages held for a slow consumer, up to 64 MiB, before newer ones are dropped. Zero: 65536
}

// A Core is a messaging.Sender, Subscriber and Requester over NATS core: at most once, no acknowledgement, no
// redelivery, no replay. A message that nobody listens to is gone. Any number of goroutines may use it at once.
type Core struct {
	nc *nats.Conn
	c  CoreConfig
}

// NewCore returns a Core over nc. The error joins every fault of the CoreConfig. It does no I/O.
func NewCore(nc *nats.Conn, c CoreConfig) (*Core, error) {
	var faults []error
	if nc == nil {
		faults = append(faults, errors.New("natsbus: no connection"))
	}
	if err := checkPrefix(c.Prefix); err != nil {
		faults = append(faults, err)
	}
	if c.Pending < 0 {
		faults = append(faults, fmt.Errorf("natsbus: Pending %d out of range", c.Pending))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if c.Pending == 0 {
		c.Pending = defaultPending
	}
	return &Core{nc: nc, c: c}, nil
}

// Features implements messaging.Sender and messaging.Subscriber.
func (c *Core) Features() messaging.Features {
	return messaging.Features{
		Confirm:  messaging.ConfirmNone,
		Groups:   true,
		Order:    messaging.OrderReader,
		Attempts: messaging.AttemptsNone,
		Request:  true,
		MaxBytes: int(c.nc.MaxPayload()),
	}
}

// wire returns m ready to be sent, or why it never can be.
func (c *Core) wire(m *messaging.Message) (*nats.Msg, error) {
	if err := checkTopic(m.Topic); err != nil {
		return nil, err
	}
	if !m.NotBefore.IsZero() {
		return nil, fmt.Errorf("%w: NotBefore over NATS core", messaging.ErrUnsupported)
	}
	wire, size, err := encode(m, c.c.Prefix+m.Topic, "")
	if err != nil {
		return nil, err
	}
	if limit := int(c.nc.MaxPayload()); limit > 0 && size > limit {
		return nil, &messaging.TooLargeError{Size: size, Limit: limit}
	}
	return wire, nil
}

// Send implements messaging.Sender. Nil means that the server has read the messages, not that anybody listens.
func (c *Core) Send(ctx context.Context, m []*messaging.Message) error {
	var failed []messaging.Failure
	fail := func(i int, err error, unknown bool) {
		failed = append(failed, messaging.Failure{Index: i, Err: err, Unknown: unknown})
	}
	err := context.Cause(ctx)
	if err == nil {
		err = connected(ctx, c.nc)
	}
	var sent []int
	var broken map[lane]error // keys of which a message could not be sent
	for i, msg := range m {
		if err != nil {
			fail(i, err, false)
			continue
		}
		l := lane{msg.Topic, msg.Key}
		if before := broken[l]; before != nil {
			fail(i, before, false)
			continue
		}
		wire, werr := c.wire(msg)
		if werr != nil {
			werr = retry.Permanent(werr)
		} else if werr = c.nc.PublishMsg(wire); werr != nil {
			werr = connError(werr)
		}
		if werr != nil {
			fail(i, werr, false)
			if msg.Key != "" {
				if broken == nil {
					broken = map[lane]error{}
				}
				broken[l] = fmt.Errorf("natsbus: an earlier message of its key was not sent: %w", werr)
			}
			continue
		}
		sent = append(sent, i)
	}
	if len(sent) > 0 {
		if err := flush(ctx, c.nc); err != nil {
			for _, i := range sent {
				fail(i, err, true)
			}
		}
	}
	if len(failed) == 0 {
		return nil
	}
	slices.SortFunc(failed, func(a, b messaging.Failure) int { return a.Index - b.Index })
	return &messaging.PublishError{Failed: failed}
}

// flush waits until the server has read everything so far.
func flush(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout) // nats.go insists on a deadline
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return connError(err)
	}
	return nil
}

// Request implements messaging.Requester: it sends m and waits for the first answer, of a responder of any kind. Nobody
// to answer is ErrNoResponder at once.
func (c *Core) Request(ctx context.Context, m *messaging.Message) (*messaging.Message, error) {
	wire, err := c.wire(m)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	if err := connected(ctx, c.nc); err != nil {
		return nil, err
	}
	reply, err := c.nc.RequestMsgWithContext(ctx, wire)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("natsbus: %w: %q", messaging.ErrNoResponder, m.Topic)
	case err != nil:
		return nil, connError(err)
	}
	answer, err := decode(reply, m.Topic)
	if err != nil {
		return nil, err
	}
	if answer.Time.IsZero() {
		answer.Time = time.Now()
	}
	return answer, nil
}

// Open implements messaging.Subscriber. It returns when the server has the subscription. There is no past to begin at.
func (c *Core) Open(ctx context.Context, s messaging.Spec) (messaging.Subscription, error) {
	if err := checkTopic(s.Topic); err != nil {
		return nil, retry.Permanent(err)
	}
	if s.Group != "" && !isToken(s.Group) {
		return nil, retry.Permanent(fmt.Errorf("%w: group %q: letters, digits, '-' and '_'", messaging.ErrInvalid, s.Group))
	}
	if s.Group != "" && s.Ordered {
		return nil, retry.Permanent(fmt.Errorf("%w: Ordered with a Group over NATS core", messaging.ErrUnsupported))
	}
	_, byTime := s.Start.Time()
	if byTime || s.Start.IsEarliest() || len(s.Start.Cursors()) > 0 {
		return nil, retry.Permanent(fmt.Errorf("%w: replay over NATS core", messaging.ErrUnsupported))
	}
	if err := connected(ctx, c.nc); err != nil {
		return nil, err
	}
	sub := &coreSubscription{nc: c.nc, spec: s, reconnects: c.nc.Stats().Reconnects}
	var err error
	// Not ChanSubscribe: nats.go would not bound its bytes.
	if s.Group != "" {
		sub.sub, err = c.nc.QueueSubscribeSync(c.c.Prefix+s.Topic, s.Group)
	} else {
		sub.sub, err = c.nc.SubscribeSync(c.c.Prefix + s.Topic)
	}
	if err == nil {
		err = sub.sub.SetPendingLimits(c.c.Pending, max(s.MaxBytes, pendingBytes))
	}
	if err != nil {
		return nil, connError(err)
	}
	if err := flush(ctx, c.nc); err != nil {
		_ = sub.sub.Unsubscribe() // the first error is the one to tell
		return nil, err
	}
	return sub, nil
}

// A coreSubscription receives what is published while it exists.
type coreSubscription struct {
	nc   *nats.Conn
	spec messaging.Spec
	sub  *nats.Subscription

	dropped    int
	reconnects uint64
	down       bool
	ref        uint64

	mu       sync.Mutex
	requests map[uint64]string // where the answer to a delivery goes, if it is a request
	closed   bool
}

// Receive implements messaging.Subscription.
func (s *coreSubscription) Receive(ctx context.Context, into []messaging.Delivery) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	for {
		if err := s.look(ctx); err != nil {
			return 0, err
		}
		m, err := s.next(ctx)
		if err != nil {
			return 0, err
		}
		if m == nil {
			continue
		}
		into[0] = s.delivery(m)
		n := 1
		for n < len(into) && s.waiting() {
			if m, _ = s.next(ctx); m == nil {
				break // an error comes again
			}
			into[n] = s.delivery(m)
			n++
		}
		return n, nil
	}
}

// waiting reports whether a message is here already.
func (s *coreSubscription) waiting() bool {
	n, _, err := s.sub.Pending()
	return err == nil && n > 0
}

// next returns a message, or nil if it is time to look after the connection and the count of dropped ones.
func (s *coreSubscription) next(ctx context.Context) (*nats.Msg, error) {
	wctx, cancel := context.WithTimeout(ctx, watch)
	defer cancel()
	m, err := s.sub.NextMsgWithContext(wctx)
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case wctx.Err() != nil || errors.Is(err, nats.ErrSlowConsumer):
		return nil, nil
	}
	return nil, connError(err)
}

// look tells of dropped messages and of a connection that is gone, or here again.
func (s *coreSubscription) look(ctx context.Context) error {
	if s.nc.IsClosed() {
		return connError(nats.ErrConnectionClosed)
	}
	if n, err := s.sub.Dropped(); err == nil && n > s.dropped {
		gap := n - s.dropped
		s.dropped = n
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Gap, Gap: int64(gap)})
	}
	n, up := s.nc.Stats().Reconnects, s.nc.IsConnected()
	if (!up || n != s.reconnects) && !s.down {
		s.down = true
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Disconnected, Err: nats.ErrDisconnected})
	}
	s.reconnects = n
	if up && s.down {
		s.down = false
		s.spec.Report(ctx, messaging.Event{Kind: messaging.Reconnected})
	}
	return nil
}

func (s *coreSubscription) delivery(m *nats.Msg) messaging.Delivery {
	msg, fault := decode(m, s.spec.Topic)
	if msg.Time.IsZero() {
		msg.Time = time.Now()
	}
	msg.Attempt, msg.Group = 1, s.spec.Group
	s.ref++
	if m.Reply != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.requests == nil {
			s.requests = map[uint64]string{}
		}
		s.requests[s.ref] = m.Reply
	}
	return messaging.Delivery{Message: msg, Malformed: fault, Ref: s.ref}
}

// Settle implements messaging.Subscription. There is nothing to acknowledge and nobody to give a message back to; a Reply
// is sent to who has asked.
func (s *coreSubscription) Settle(_ context.Context, list []messaging.Settlement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		e := &list[i]
		e.Err = nil
		to := s.requests[e.Ref]
		switch {
		case s.closed:
			e.Err = messaging.ErrClosed
		case e.Action == messaging.Extend:
		case e.Action == messaging.Retry:
			e.Err = fmt.Errorf("%w: redelivery over NATS core", messaging.ErrUnsupported)
		default:
			delete(s.requests, e.Ref)
			if to != "" && e.Reply != nil {
				e.Err = s.answer(to, e.Reply)
			}
		}
	}
	return nil
}

// answer sends m to the inbox of a request.
func (s *coreSubscription) answer(to string, m *messaging.Message) error {
	wire, size, err := encode(m, to, "")
	if err != nil {
		return err
	}
	if limit := int(s.nc.MaxPayload()); limit > 0 && size > limit {
		return &messaging.TooLargeError{Size: size, Limit: limit}
	}
	if err := s.nc.PublishMsg(wire); err != nil {
		return connError(err)
	}
	return nil
}

// Close implements messaging.Subscription. What was received and not delivered is lost.
func (s *coreSubscription) Close(context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	if err := s.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return connError(err)
	}
	return nil
}
