package messaging

import "time"

// A history is what this process remembers of a message between two deliveries.
type history struct {
	waits int       // deliveries that the transport counts and that were no failures
	first time.Time // first failure
}

// maxHistory bounds the messages remembered; forgetting one makes those deliveries count as attempts.
const maxHistory = 4096

func (r *run) recallHistory(f *flight) {
	if len(r.history) == 0 {
		return
	}
	if h, ok := r.history[f.message.ID]; ok && f.message.ID != "" {
		f.waits, f.first = h.waits, h.first
	}
}

func (r *run) remember(f *flight) {
	if f.message.ID == "" {
		return
	}
	if _, known := r.history[f.message.ID]; !known && len(r.history) >= maxHistory {
		for id := range r.history { // any
			delete(r.history, id)
			break
		}
	}
	r.history[f.message.ID] = history{waits: f.waits, first: f.first}
}

func (r *run) forget(f *flight) {
	if len(r.history) > 0 {
		delete(r.history, f.message.ID)
	}
}
