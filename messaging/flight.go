package messaging

import (
	"context"
	"sync"
	"time"
)

// A flight is one delivery from its arrival to its settlement. The mutex of its run guards it.
type flight struct {
	message *Message
	source  *source
	ref     uint64
	state   flightState
	lane    *lane // nil: no order
	index   int   // in run.flights
	size    int   // of the body as it came; what the handler has is the handler's

	until    time.Time // end of the lease; zero: none
	extendAt time.Time // when to extend it; zero: never
	timeOut  time.Time // while running: when HandleTimeout is over; zero: never
	wakeAt   time.Time // while sleeping: when it is due
	asleep   decision  // while sleeping: why
	worker   *worker   // while running

	waits   int       // deliveries that were no failures, that this process knows of
	first   time.Time // first failure that this process knows of
	arrived time.Time
	dead    *burial // not nil: the handler does not run again, a dead letter is due

	parked    bool // counted as parked, not as taken
	last      bool // Delivery.Last: giving it back would lose it
	extending bool // the transport was asked
	lost      bool // the transport has given it to somebody else
	timedOut  bool // HandleTimeout is over: the lease is not extended any more
	abandoned bool // a drain has given it back while its handler runs

	recall, gone <-chan struct{} // Delivery.Recall and Lost
	verdict      Settlement
	generation   uint64
}

type flightState int

const (
	queued flightState = iota
	running
	waiting  // in its lane, behind another
	sleeping // until wakeAt
	settling
	freed
)

// A lane is the messages of one key in hand: the first runs, or is about to, or sleeps; the others wait for it.
type lane struct {
	key      string
	sleeping bool // its head sleeps
	behind   []*flight
}

// A worker is one of the goroutines that run the handler. Its context serves many messages, because a context for each
// costs more than the rest of a delivery; once cancelled it is replaced.
type worker struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	uses   int
	task   task // its own; kept here because it would be allocated
}

// contextUses bounds how long what a handler forgot to release stays attached to the worker's context.
const contextUses = 64

// A source is one subscription. It is closed when it is over and its last delivery is settled.
type source struct {
	sub     Subscription
	flights int // and extensions under way
	over    bool
	closing sync.Once
}
