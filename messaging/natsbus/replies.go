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

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// window bounds the requests of one Bus that wait for an answer.
const window = 4096

// poll is how often a waiting call looks whether the connection is still the same. nats.go has listeners for that, but
// drops one that did not read in time, and RemoveStatusListener of one user removes those of all.
const poll = 100 * time.Millisecond

var errLost = errors.New("natsbus: the connection was lost before the answer")

// replies is one inbox for all requests of a Bus. It needs no goroutine of its own: the answers of all callers come in by
// one channel, and whoever waits hands out what it finds there.
type replies struct {
	nc   *nats.Conn
	room chan struct{} // one token for each open request

	mu    sync.Mutex
	ch    chan *nats.Msg // made by the first begin; read without mu after it
	inbox string
	next  uint64
	calls map[uint64]*caller
}

// A caller is one call that waits for answers to numbered requests.
type caller struct {
	id         uint64
	inbox      string // of this call, with the dot
	reconnects uint64
	more       chan struct{} // capacity 1: there is something in got
	got        []answer      // guarded by replies.mu
}

type answer struct {
	index int
	msg   *nats.Msg
}

func newReplies(nc *nats.Conn) *replies {
	return &replies{nc: nc, room: make(chan struct{}, window), calls: map[uint64]*caller{}}
}

// begin registers a caller. end must follow.
func (r *replies) begin() (*caller, error) {
	reconnects := r.nc.Stats().Reconnects
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ch == nil {
		// Twice the window: the answers that come too late for their callers need room, too.
		ch, inbox := make(chan *nats.Msg, 2*window), r.nc.NewInbox()+"."
		if _, err := r.nc.ChanSubscribe(inbox+"*.*", ch); err != nil {
			return nil, connError(err)
		}
		r.ch, r.inbox = ch, inbox
	}
	r.dropLate()
	r.next++
	c := &caller{id: r.next, reconnects: reconnects, more: make(chan struct{}, 1)}
	c.inbox = r.inbox + strconv.FormatUint(c.id, 36) + "."
	r.calls[c.id] = c
	return c, nil
}

// dropLate makes room for answers: those that nobody waited for any more stay in ch while no call is under way.
func (r *replies) dropLate() {
	for len(r.calls) == 0 && len(r.ch) > 0 {
		<-r.ch
	}
}

func (r *replies) end(c *caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.calls, c.id)
}

// reply is the reply subject of request i.
func (c *caller) reply(i int) string { return c.inbox + strconv.Itoa(i) }

// wait returns at least one answer, errLost when the connection was lost since begin, or the cause of ctx. tick is the
// caller's poll.
func (r *replies) wait(ctx context.Context, c *caller, tick <-chan time.Time) ([]answer, error) {
	for {
		if got := r.take(c); len(got) > 0 {
			return got, nil
		}
		select {
		case m := <-r.ch:
			r.hand(m)
		case <-c.more:
		case <-tick:
			if !r.nc.IsConnected() || r.nc.Stats().Reconnects != c.reconnects {
				if got := r.collect(c); len(got) > 0 {
					return got, nil
				}
				return nil, errLost
			}
		case <-ctx.Done():
			if got := r.collect(c); len(got) > 0 {
				return got, nil
			}
			return nil, context.Cause(ctx)
		}
	}
}

// collect takes what has arrived, for the last time: an answer that is here is better than an unknown fate.
func (r *replies) collect(c *caller) []answer {
	select {
	case m := <-r.ch:
		r.hand(m)
	default:
	}
	return r.take(c)
}

func (r *replies) take(c *caller) []answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// hand gives m, and what else has arrived, to its callers.
func (r *replies) hand(m *nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		r.handLocked(m)
		select {
		case m = <-r.ch:
		default:
			return
		}
	}
}

func (r *replies) handLocked(m *nats.Msg) {
	id, index, ok := strings.Cut(strings.TrimPrefix(m.Subject, r.inbox), ".")
	if !ok {
		return
	}
	call, err := strconv.ParseUint(id, 36, 64)
	if err != nil {
		return
	}
	i, err := strconv.Atoi(index)
	if err != nil {
		return
	}
	c := r.calls[call]
	if c == nil {
		return // too late
	}
	c.got = append(c.got, answer{i, m})
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// acquire takes room for one request, without waiting unless must is true.
func (r *replies) acquire(ctx context.Context, must bool) (bool, error) {
	select {
	case r.room <- struct{}{}:
		return true, nil
	default:
	}
	for must {
		select {
		case r.room <- struct{}{}:
			return true, nil
		case m := <-r.ch:
			r.hand(m)
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return false, nil
}

func (r *replies) release() { <-r.room }

// connError marks the end of the connection as what it is: nothing that another try could mend.
func connError(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionDraining) {
		return retry.Permanent(fmt.Errorf("natsbus: %w: %w", messaging.ErrClosed, err))
	}
	return fmt.Errorf("natsbus: %w", err)
}

// connected waits until nc is connected. It says nothing about the next moment.
func connected(ctx context.Context, nc *nats.Conn) error {
	if nc.IsConnected() {
		return nil
	}
	tick := time.NewTicker(poll / 4)
	defer tick.Stop()
	for {
		if nc.IsClosed() {
			return connError(nats.ErrConnectionClosed)
		}
		if nc.IsConnected() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(nats.ErrDisconnected, context.Cause(ctx))
		}
	}
}
