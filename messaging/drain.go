package messaging

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// beginDrain stops everything that would begin something new. It is called when Run's context ends.
func (r *run) beginDrain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	r.room.Broadcast()
}

// drain hands back what has not started, waits for handlers, tells the last verdicts and closes everything.
func (r *run) drain() error {
	r.beginDrain()
	r.mu.Lock()
	r.handBack()
	quiet := r.awaitQuiet(r.c.config.DrainTimeout)
	if !quiet {
		r.mu.Unlock()
		r.endBase(ErrDraining)
		r.mu.Lock()
		r.awaitQuiet(min(drainGrace, r.c.config.DrainTimeout))
	}
	stuck := r.abandon()
	r.stopped = true
	r.work.Broadcast()
	for r.workers > r.running { // those who run are stuck
		r.quiet.Wait()
	}
	r.closed = true
	r.verdicts.Broadcast()
	r.mu.Unlock()
	<-r.allSaid
	r.mu.Lock()
	r.stopWatches()
	r.keeper.end = true
	r.keeper.wake()
	r.mu.Unlock()
	r.endKeeping() // nothing is held any more
	r.keeping.Wait()
	r.mu.Lock()
	for _, src := range slices.Clone(r.sources) {
		r.closeSource(src)
	}
	r.silent = true
	r.hooks.Signal()
	r.mu.Unlock()
	r.others.Wait()
	r.endBase(ErrDraining)
	if stuck == 0 {
		return nil
	}
	if log := r.c.config.Log; log != nil {
		log.Error("messaging: handlers are still running after the drain", slog.String("topic", r.c.topic),
			slog.String("group", r.c.config.Group), slog.Int("handlers", stuck))
	}
	return fmt.Errorf("messaging: consume %s: %w: %d handlers are still running after %v",
		r.c.topic, ErrDraining, stuck, r.c.config.DrainTimeout)
}

// handBack releases everything that has not started. What sleeps keeps its delay where the transport can hold it.
func (r *run) handBack() {
	r.ready, r.readyAt = nil, 0
	for _, l := range r.lanes { // those who run still have theirs, and nobody follows them
		l.behind = nil
	}
	clear(r.lanes)
	for _, f := range r.flights {
		if f.state == running || f.state == settling {
			continue
		}
		f.lane = nil
		switch {
		case f.lost: // dropped by a worker
			r.makeReady(f)
		case f.last: // the transport would lose it
			if f.dead == nil {
				f.dead = r.newBurial(f, deadLast, errLast, time.Now())
			}
			r.makeReady(f)
		case f.state == sleeping:
			d := f.asleep
			d.delay = max(time.Until(f.wakeAt), 0)
			r.toSettle(f, r.backToTransport(f, d))
		default:
			r.toSettle(f, Settlement{Action: Release})
		}
	}
	r.work.Broadcast()
}

var errLast = errors.New("messaging: the last delivery of the message was cut short by a shutdown")

// awaitQuiet waits until no handler runs, or the time is over.
func (r *run) awaitQuiet(most time.Duration) bool {
	over := false
	t := time.AfterFunc(most, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		over = true
		r.quiet.Broadcast()
	})
	defer t.Stop()
	for (r.running > 0 || len(r.ready) > 0) && !over {
		r.quiet.Wait()
	}
	return r.running == 0
}

// abandon gives back what stuck handlers hold. What they return counts for nothing any more.
func (r *run) abandon() (stuck int) {
	for _, f := range r.flights {
		if f.state != running {
			continue
		}
		stuck++
		f.abandoned = true
		if !f.last { // one that nobody delivers again may still be handled
			r.toSettle(f, Settlement{Action: Release})
		}
	}
	return stuck
}
