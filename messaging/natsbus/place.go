package natsbus

import (
	"time"

	"github.com/nats-io/nats.go"
)

// A place is how far a subscription has read: the last first delivery it has seen.
type place struct {
	stream uint64 // sequence in the stream
	seq    uint64 // of the delivery, in the consumer
	// broken: a reader needs a new consumer. doubt: the consumer may be gone.
	broken, doubt bool
}

// hole reports whether deliveries of the consumer before i are missing: normal in a group, where others get them, and
// never in a reader.
func (p *place) hole(i ackInfo) bool { return i.seq != p.seq+1 }

// saw notes one delivery and returns how many messages were dropped from the stream before the group had read them: the
// stream went further than the consumer has delivered. Redeliveries make the count too low, never too high.
func (p *place) saw(i ackInfo) (gap int64) {
	if i.deliveries > 1 {
		return 0
	}
	if i.stream > p.stream && i.seq > p.seq {
		gap = int64(i.stream-p.stream) - int64(i.seq-p.seq)
	}
	// Backwards, too: a server that lost its newest state delivers again as if for the first time.
	p.stream, p.seq = i.stream, i.seq
	return max(gap, 0)
}

// arrivals bounds from below when a message of the channel arrived, without a time stamp on each: at a mark, all that
// will be taken after what the channel held then is younger than the mark.
type arrivals struct {
	base   time.Time // every message to be taken is younger
	marked time.Time
	before int // messages to be taken that are older than marked
}

// mark notes what ch holds now.
func (a *arrivals) mark(ch <-chan *nats.Msg) {
	if a.before > 0 {
		return
	}
	now := time.Now() // first: what arrives before len counts as older
	a.base, a.marked, a.before = a.marked, now, len(ch)
	if a.base.IsZero() || a.before == 0 {
		a.base = now
	}
}

// woken notes that ch was empty until this moment; unless the whole process stood still since the mark, and the message
// may have waited in the socket.
func (a *arrivals) woken() {
	if now := time.Now(); now.Sub(a.marked) <= 2*watch {
		a.base, a.marked = now, now
	}
	a.before = 0
}

// take returns the bound for the next message.
func (a *arrivals) take() time.Time {
	if a.before > 0 {
		a.before--
		return a.base
	}
	a.base = a.marked
	return a.base
}
