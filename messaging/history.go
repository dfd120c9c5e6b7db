package messaging

import "time"

// A history is what this process remembers of a message between two deliveries.
type history struct {
	waits int       // deliveries that the transport counts and that were no failures
	first time.Time // first failure
}

// An identity is what a message is known by. An ID is unique for its source, no more.
type identity struct{ source, id string }

func (f *flight) identity() identity { return identity{f.message.Source, f.message.ID} }

// maxHistory bounds the messages remembered; forgetting one makes those deliveries count as attempts.
const maxHistory = 4096

func (r *run) recallHistory(f *flight) {
	if len(r.history) == 0 {
		return
	}
	if h, ok := r.history[f.identity()]; ok && f.message.ID != "" {
		f.waits, f.first = h.waits, h.first
	}
}

func (r *run) remember(f *flight) {
	if f.message.ID == "" {
		return
	}
	if _, known := r.history[f.identity()]; !known && len(r.history) >= maxHistory {
		for id := range r.history { // any
			delete(r.history, id)
			break
		}
	}
	r.history[f.identity()] = history{waits: f.waits, first: f.first}
}

func (r *run) forget(f *flight) {
	if len(r.history) > 0 {
		delete(r.history, f.identity())
	}
}
