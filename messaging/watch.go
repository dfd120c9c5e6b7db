package messaging

// A watch waits for one Recall or Lost channel while a delivery in hand has it.
type watch struct {
	uses int
	stop chan struct{}
}

// watchDelivery begins to watch the channels of a delivery. Most transports have none, and pay nothing.
func (r *run) watchDelivery(f *flight, d *Delivery) {
	f.recall, f.gone = d.Recall, d.Lost
	if f.recall != nil {
		r.watchChannel(f.recall, r.giveBack)
	}
	if f.gone != nil {
		r.watchChannel(f.gone, r.loseNow)
	}
}

func (r *run) watchChannel(c <-chan struct{}, then func(<-chan struct{})) {
	w := r.watches[c]
	if w == nil {
		w = &watch{stop: make(chan struct{})}
		r.watches[c] = w
		r.others.Go(func() {
			select {
			case <-c:
				r.mu.Lock()
				defer r.mu.Unlock()
				then(c)
			case <-w.stop:
			}
		})
	}
	w.uses++
}

// unwatch ends what watchDelivery began.
func (r *run) unwatch(f *flight) {
	for _, c := range [...]<-chan struct{}{f.recall, f.gone} {
		if c == nil {
			continue
		}
		w := r.watches[c]
		if w == nil {
			continue
		}
		if w.uses--; w.uses == 0 {
			delete(r.watches, c)
			close(w.stop)
		}
	}
}

// giveBack releases what has not started of the deliveries that share a Recall channel.
func (r *run) giveBack(c <-chan struct{}) {
	for _, f := range r.flights {
		if f.recall != c || f.lost {
			continue
		}
		switch f.state {
		case queued, waiting, sleeping:
			r.withdraw(f)
			r.toSettle(f, Settlement{Action: Release})
		}
	}
}

// loseNow gives up the deliveries that share a Lost channel.
func (r *run) loseNow(c <-chan struct{}) {
	for i := len(r.flights) - 1; i >= 0; i-- {
		if f := r.flights[i]; f.gone == c && !f.lost {
			r.lose(f)
		}
	}
}

// withdraw takes a flight that does not run out of the queue or lane it waits in.
func (r *run) withdraw(f *flight) {
	switch f.state {
	case queued:
		kept := r.ready[:r.readyAt]
		for _, g := range r.ready[r.readyAt:] {
			if g != f {
				kept = append(kept, g)
			}
		}
		clear(r.ready[len(kept):])
		r.ready = kept
		r.leaveLane(f)
	case waiting:
		kept := f.lane.behind[:0]
		for _, g := range f.lane.behind {
			if g != f {
				kept = append(kept, g)
			}
		}
		f.lane.behind, f.lane = kept, nil
	case sleeping:
		r.leaveLane(f)
	}
}

func (r *run) stopWatches() {
	for c, w := range r.watches {
		delete(r.watches, c)
		close(w.stop)
	}
}
