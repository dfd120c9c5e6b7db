package messaging

import "context"

// tell has a hook called, in order, without the lock that its caller holds.
func (r *run) tell(hook func(context.Context)) {
	r.told = append(r.told, hook)
	r.hooks.Signal()
}

// tellLoop calls hooks until the run has ended. They have a goroutine of their own: they are the user's code, and may
// take longer than a lease.
func (r *run) tellLoop() {
	ended := false
	defer func() {
		if !ended { // a hook called runtime.Goexit, which takes its goroutine with it
			r.others.Go(r.tellLoop)
		}
	}()
	for {
		hook := r.nextHook()
		if hook == nil {
			ended = true
			return
		}
		hook(r.base)
	}
}

func (r *run) nextHook() func(context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.told) == 0 && !r.silent {
		r.hooks.Wait()
	}
	if len(r.told) == 0 {
		return nil
	}
	hook := r.told[0]
	r.told[0] = nil
	r.told = r.told[1:]
	return hook
}
