// Package breaker stops calling what does not answer.
//
// A [Breaker] watches the calls to one destination. While it is closed it admits all of them; when too many fail, or too
// many in a row, or too many are slow, it opens and refuses them at once; after a while it is half-open and lets a few
// probes through, whose success closes it and whose failure opens it for longer. A [Group] holds one Breaker per key.
//
// What it guarantees:
//
//   - An outcome has three values. A call that says nothing about the other side, such as one whose caller went away or
//     one that panicked, is Ignored: it neither opens nor closes.
//   - Failures in a row are counted apart from the window: only a success resets them, so that a slow trickle of
//     failures opens the breaker too.
//   - Half-open, at most Probes calls are admitted before the breaker has decided. The place of a probe that is Ignored
//     is free again, and a probe that never reports has failed when its lease is over: no lost probe holds its place.
//   - An outcome that arrives after the state has changed counts for nothing.
//   - Times open differ from one breaker to the next, so that clients do not all come back at once.
//   - Callbacks come in the order of the changes, one at a time, without a lock held.
//   - A call admitted by a closed breaker allocates nothing.
//
// What must not be concluded from it:
//
//   - States change when somebody calls, and callbacks come then; only [Breaker.State] and [Breaker.RetryAfter] are
//     computed with the clock.
//   - A Breaker knows this process only. It shares nothing with the breakers of other instances.
//   - It does not end a call: a timeout is the caller's business, and without one a call that hangs is noticed as a probe
//     only.
package breaker
