package breaker

import "context"

// event is a StateChange with the context of the call that made it.
type event struct {
	ctx    context.Context
	change StateChange
}

// deliver calls OnStateChange for what is in the queue, in order, without the lock. Whoever is delivering already goes
// on with what others add; so a callback may call the Breaker, and there is never more than one at a time.
func (b *Breaker) deliver() {
	if b.c.OnStateChange == nil {
		return
	}
	for b.deliverOne() {
	}
}

func (b *Breaker) deliverOne() (more bool) {
	b.mu.Lock()
	if b.delivering || len(b.queue) == 0 {
		b.mu.Unlock()
		return false
	}
	e := b.queue[0]
	b.queue = b.queue[1:]
	b.delivering = true
	b.mu.Unlock()

	exiting := true
	defer func() {
		if recover() != nil {
			exiting, more = false, true
		}
		b.mu.Lock()
		b.delivering = false
		b.mu.Unlock()
		if exiting {
			b.deliver() // the callback ends this goroutine, but not the deliveries
		}
	}()
	b.c.OnStateChange(e.ctx, e.change)
	exiting = false
	return true
}
