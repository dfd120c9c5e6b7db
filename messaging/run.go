package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tandemgo/tandem/internal/call"
)

const (
	// maxParked bounds what waits for a delayed retry, in this process or in the transport's hands.
	maxParked = 1000
	// settleTimeout bounds one call of Settle, and of Close.
	settleTimeout = 5 * time.Second
	// clockSkew is how far the transport's clock may be behind ours.
	clockSkew = time.Second
	// drainGrace is how long handlers have to return after their contexts have ended.
	drainGrace = time.Second
	// poisonSlack: a message delivered more than this many times the attempts it may have has ended this process, or
	// another one, before anybody could count a failure.
	poisonSlack = 2
)

// A run is one Run of a Consumer. Five kinds of goroutines share it: the one that called Run fetches, the workers run
// the handler, the settler tells the transport the verdicts, the keeper looks after everything that has a time: leases,
// handlers that take too long, sleeping messages; the teller calls those hooks that are not called where things happen.
type run struct {
	c     *Consumer
	slots int
	// base is the parent of every handler's context: it has the values of Run's, and ends when a drain has waited long
	// enough.
	base    context.Context
	endBase context.CancelCauseFunc
	others  sync.WaitGroup // settler, teller, watchers, closings
	// keeping is the keeper and the extensions under way, which are cut short by endKeeping.
	keeping    sync.WaitGroup
	keepingCtx context.Context
	endKeeping context.CancelFunc
	allSaid    chan struct{} // closed when the settler has told the transport every verdict and ended
	opened     bool          // of the fetching goroutine: a subscription was opened before
	began      time.Time     // of the fetching goroutine: when that was
	resume     []Cursor      // of the fetching goroutine: where a reader has come to, in each log

	mu       sync.Mutex
	work     *sync.Cond // something is ready, or stopped
	room     *sync.Cond // a slot is free, or draining
	verdicts *sync.Cond // something is to be settled, or closed
	quiet    *sync.Cond // a handler or a worker has ended
	hooks    *sync.Cond // there is something to tell, or silent

	ready   []*flight // to be handled, oldest at readyAt
	readyAt int
	settle  []*flight               // to be settled
	told    []func(context.Context) // hooks to be called, oldest first
	flights []*flight               // all of them
	free    []*flight               // to be used again
	lanes   map[string]*lane
	history map[identity]history
	sources []*source
	watches map[<-chan struct{}]*watch

	taken, bytes        int // in hand, but for what is parked
	parked, parkedBytes int
	running, workers    int
	idle                int  // workers without work
	draining            bool // start nothing new
	stopped             bool // workers end
	closed              bool // the settler ends
	silent              bool // the teller ends
	brake               brake
	braking             bool // the brake came on, and Receive does not know yet
	stopAsking          context.CancelCauseFunc
	keeper              keeper
	stats               Stats
}

// Run consumes until ctx ends, then stops fetching, lets handlers finish within DrainTimeout, hands the rest back and
// returns nil; or an error that says how many handlers are still running. It survives a lost connection or a recreated
// group and returns before ctx ends only for an error that nothing can mend. A second Run is an error.
//
// A handler that does not return although its context has ended keeps its goroutine: nobody can take that away from it.
// It is the one thing that outlives Run, and the error counts it.
//
//nolint:contextcheck // handlers and settlements outlive ctx on purpose: base has its values and not its end
func (c *Consumer) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("messaging: Consumer.Run was called before")
	}
	r := c.newRun(ctx)
	c.run.Store(r)
	stopWatching := context.AfterFunc(ctx, r.beginDrain)
	defer stopWatching()

	for range c.config.Concurrency {
		r.startWorker()
	}
	r.others.Go(r.settleLoop)
	r.keeping.Go(r.keep)
	r.others.Go(r.tellLoop)

	err := r.fetchAll(ctx)
	return errors.Join(err, r.drain())
}

func (c *Consumer) newRun(ctx context.Context) *run {
	base, _ := call.WithInbound(context.WithoutCancel(ctx), 0)
	base, end := context.WithCancelCause(base)
	r := &run{
		c: c, slots: c.config.Concurrency + c.config.Buffer, base: base, endBase: end,
		lanes: make(map[string]*lane), history: make(map[identity]history), watches: make(map[<-chan struct{}]*watch),
		keeper: keeper{poke: make(chan struct{}, 1)}, allSaid: make(chan struct{}),
	}
	r.keepingCtx, r.endKeeping = context.WithCancel(context.WithoutCancel(base))
	r.work, r.room = sync.NewCond(&r.mu), sync.NewCond(&r.mu)
	r.verdicts, r.quiet, r.hooks = sync.NewCond(&r.mu), sync.NewCond(&r.mu), sync.NewCond(&r.mu)
	return r
}

// fetchAll opens subscriptions, one after another when one fails, until ctx ends or an error says that nothing helps.
//
//nolint:contextcheck,nilerr // closing a subscription outlives ctx; the end of ctx is no error of Run
func (r *run) fetchAll(ctx context.Context) error {
	failures, down := 0, false
	for ctx.Err() == nil {
		began := time.Now()
		src, err := r.open(ctx)
		if err == nil {
			if down {
				r.report(ctx, Event{Kind: Reconnected})
			}
			down = false
			err = r.fetch(ctx, src)
			r.retire(src)
		}
		if ctx.Err() != nil {
			return nil
		}
		if isPermanent(err) || errors.Is(err, ErrUnsupported) {
			return fmt.Errorf("messaging: consume %s: %w", r.c.topic, err)
		}
		if !down {
			r.report(ctx, Event{Kind: Disconnected, Err: err})
		}
		down = true
		if time.Since(began) > time.Minute { // it had worked for a while
			failures = 0
		}
		failures++
		if !pause(ctx, reopenDelay(failures)) {
			return nil
		}
	}
	return nil
}

// reopenDelay draws from the upper half of an interval that doubles from 100 ms to 30 s.
func reopenDelay(failures int) time.Duration {
	d := min(100*time.Millisecond<<min(failures-1, 20), 30*time.Second)
	return d/2 + rand.N(d/2)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) open(ctx context.Context) (*source, error) {
	c := &r.c.config
	spec := Spec{
		Topic: r.c.topic, Group: c.Group, Ordered: c.Ordered, Start: c.Start, Lease: c.Lease,
		Slots: r.slots, Parked: maxParked, MaxBytes: c.BufferBytes, Report: r.report,
	}
	switch {
	case len(r.resume) > 0: // a reader goes on where it was
		spec.Start = After(r.resume...)
	case r.opened && c.Group == "" && c.Start.IsLatest() && r.c.features.Replay >= ReplayTime:
		spec.Start = FromTime(r.began.Add(-clockSkew)) // it has seen nothing, and the end is no longer where it was
	}
	sub, err := r.c.source.Open(ctx, spec)
	if err != nil {
		return nil, err
	}
	src := &source{sub: sub}
	r.mu.Lock()
	r.sources = append(r.sources, src)
	if r.opened {
		r.stats.Reconnects++
	}
	r.mu.Unlock()
	if !r.opened {
		r.opened, r.began = true, time.Now()
		close(r.c.ready)
	}
	return src, nil
}

// report passes an Event on, of the adapter or our own.
func (r *run) report(ctx context.Context, e Event) {
	c := &r.c.config
	if c.Log != nil {
		c.Log.LogAttrs(ctx, slog.LevelWarn, "messaging: "+e.Kind.String(), slog.String("topic", r.c.topic),
			slog.String("group", c.Group), slog.Int64("gap", e.Gap), slog.Any("error", e.Err))
	}
	if c.OnEvent != nil {
		contain(c.Log, func() { c.OnEvent(ctx, e) })
	}
}

// fetch asks for as many deliveries as there are free slots, again and again.
func (r *run) fetch(ctx context.Context, src *source) error {
	into := make([]Delivery, r.slots)
	asking := r.ask(ctx)
	defer func() { r.stopAsking(nil) }()
	for {
		n := r.waitForRoom()
		if n == 0 {
			return nil
		}
		k, err := src.sub.Receive(asking, into[:n])
		if k > 0 {
			r.accept(src, into[:k])
			clear(into[:k])
		}
		if asking.Err() != nil && ctx.Err() == nil {
			asking = r.ask(ctx)
			if errors.Is(err, errBraked) || errors.Is(err, context.Canceled) {
				continue
			}
		}
		if err == nil && k == 0 {
			err = errNothing
		}
		if err != nil {
			return err
		}
	}
}

// ask returns the context of the calls of Receive to come. The brake ends it once when it comes on: what was asked for
// goes back, instead of waiting with the adapter, its leases running, until a probe is due.
func (r *run) ask(ctx context.Context) context.Context {
	asking, stop := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopAsking != nil {
		r.stopAsking(nil)
	}
	r.stopAsking, r.braking = stop, false
	return asking
}

var errBraked = errors.New("messaging: one at a time")

var errNothing = errors.New("messaging: Receive returned neither a delivery nor an error")

// waitForRoom returns how many slots are free, at least one; zero when the run drains. It waits for none where the
// context of ask has ended, so that Receive sees it.
func (r *run) waitForRoom() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.draining {
		if r.braking {
			return 1
		}
		full := r.bytes+r.parkedBytes >= r.c.config.BufferBytes && r.taken > 0
		free := min(r.slots-r.taken, r.slots+maxParked-r.taken-r.parked)
		if r.brake.on {
			free = min(free, 1)
		}
		held := r.brake.on && (r.taken > 0 || r.brake.holds())
		if free > 0 && !full && !held {
			return free
		}
		r.room.Wait()
	}
	return 0
}

// accept takes deliveries in hand.
func (r *run) accept(src *source, deliveries []Delivery) {
	now := time.Now()
	group := r.c.config.Group
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range deliveries {
		d := &deliveries[i]
		if d.Message == nil {
			d.Message = &Message{Topic: r.c.topic, Time: now}
			d.Malformed = errors.Join(d.Malformed, errNoMessage)
		}
		m := d.Message
		m.Attempt = max(m.Attempt, 1)
		if m.Group == "" {
			m.Group = group
		}
		f := r.newFlight()
		f.message, f.size, f.source, f.ref, f.until, f.arrived, f.last = m, len(m.Body), src, d.Ref, d.Until, now, d.Last
		if !f.until.IsZero() && r.c.features.Extend {
			r.extendLater(f, now)
		}
		src.flights++
		r.stats.Received++
		if m.Attempt > 1 {
			r.stats.Redelivered++
			r.recallHistory(f)
		}
		f.dead = r.deadOnArrival(f, d.Malformed)
		r.watchDelivery(f, d)
		r.taken++
		r.bytes += f.size
		r.keeper.due(f.until)
		r.admit(f)
	}
	if group == "" {
		r.noteCursors(deliveries)
	}
	if r.idle > 0 {
		r.work.Signal()
	}
}

// noteCursors keeps the newest cursor of each log, so that a reader whose subscription fails goes on behind it.
func (r *run) noteCursors(deliveries []Delivery) {
	for i := range deliveries {
		c := deliveries[i].Message.Cursor
		if c == "" {
			continue
		}
		lane := c.Lane()
		at := slices.IndexFunc(r.resume, func(o Cursor) bool { return o.Lane() == lane })
		if at < 0 {
			r.resume = append(r.resume, c)
			continue
		}
		r.resume[at] = c
	}
}

var errNoMessage = errors.New("messaging: a delivery without a message")

// newFlight returns an empty flight, listed.
func (r *run) newFlight() *flight {
	var f *flight
	if n := len(r.free); n > 0 {
		f, r.free = r.free[n-1], r.free[:n-1]
		*f = flight{generation: f.generation}
	} else {
		f = new(flight)
	}
	f.index = len(r.flights)
	r.flights = append(r.flights, f)
	return f
}

// admit makes a flight ready, or lets it wait in its lane.
func (r *run) admit(f *flight) {
	key, ordered := r.laneKey(f.message)
	if !ordered {
		r.makeReady(f)
		return
	}
	l := r.lanes[key]
	if l == nil {
		f.lane = &lane{key: key}
		r.lanes[key] = f.lane
		r.makeReady(f)
		return
	}
	f.lane, f.state = l, waiting
	r.setParked(f, l.sleeping)
	l.behind = append(l.behind, f)
}

// laneKey names the lane of a message. A reader with one handler has one lane for all: it sees its log in order.
func (r *run) laneKey(m *Message) (string, bool) {
	c := &r.c.config
	if c.Ordered && m.Key != "" {
		return m.Key, true
	}
	return "", c.Group == "" && c.Concurrency == 1
}

func (r *run) makeReady(f *flight) {
	f.state = queued
	r.ready = append(r.ready, f)
}

// setParked moves a flight between those that take a slot and those that only wait.
func (r *run) setParked(f *flight, parked bool) {
	if f.parked == parked {
		return
	}
	f.parked = parked
	if parked {
		r.taken--
		r.bytes -= f.size
		r.parked++
		r.parkedBytes += f.size
	} else {
		r.taken++
		r.bytes += f.size
		r.parked--
		r.parkedBytes -= f.size
	}
}

// drop forgets a flight whose fate is decided, and frees what it took.
func (r *run) drop(f *flight) {
	last := len(r.flights) - 1
	r.flights[f.index] = r.flights[last]
	r.flights[f.index].index = f.index
	r.flights[last] = nil
	r.flights = r.flights[:last]
	r.setParked(f, false)
	r.taken--
	r.bytes -= f.size
	r.unwatch(f)
	r.leaveSource(f.source)
	r.room.Signal()
	if f.abandoned { // its handler still runs, and its goroutine will look at it
		f.state = freed
		f.generation++
		return
	}
	*f = flight{generation: f.generation + 1, state: freed}
	if len(r.free) < r.slots {
		r.free = append(r.free, f)
	}
}

// leaveLane lets the next flight of the lane go on.
func (r *run) leaveLane(f *flight) {
	l := f.lane
	if l == nil {
		return
	}
	f.lane = nil
	if len(l.behind) == 0 {
		delete(r.lanes, l.key)
		return
	}
	next := l.behind[0]
	l.behind = l.behind[1:]
	r.wakeLane(l)
	r.setParked(next, false)
	r.makeReady(next)
	if r.idle > 0 {
		r.work.Signal()
	}
}

// parkLane counts what waits in a lane as parked while its head sleeps: it takes no slot from other keys.
func (r *run) parkLane(l *lane) {
	if l == nil || l.sleeping {
		return
	}
	l.sleeping = true
	for _, f := range l.behind {
		r.setParked(f, true)
	}
}

func (r *run) wakeLane(l *lane) {
	if l == nil || !l.sleeping {
		return
	}
	l.sleeping = false
	for _, f := range l.behind {
		r.setParked(f, false)
	}
}

// retire marks a subscription that has failed. What it delivered may still be settled; then it is closed.
func (r *run) retire(src *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	src.over = true
	if src.flights == 0 && !r.draining {
		r.closeSource(src)
	}
}

// leaveSource counts one use of a subscription less; a failed one is closed after its last.
func (r *run) leaveSource(src *source) {
	src.flights--
	if src.over && src.flights == 0 && !r.closed {
		r.closeSource(src)
	}
}

// closeSource closes a subscription beside the run, once.
func (r *run) closeSource(src *source) {
	r.sources = slices.DeleteFunc(r.sources, func(s *source) bool { return s == src })
	src.closing.Do(func() {
		r.others.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.base), settleTimeout)
			defer cancel()
			if err := src.sub.Close(ctx); err != nil {
				r.logError(ctx, "messaging: close a subscription", err)
			}
		})
	})
}

func (r *run) logError(ctx context.Context, text string, err error) {
	if log := r.c.config.Log; log != nil {
		log.LogAttrs(ctx, slog.LevelWarn, text, slog.String("topic", r.c.topic),
			slog.String("group", r.c.config.Group), slog.Any("error", err))
	}
}
