// Package idempotency lets a duplicate never have a second effect: a repeated HTTP request, a redelivered message, a
// job started twice.
//
// Work has a Key. The first to claim the key does the work and keeps its result; whoever comes later with the same key
// gets that result. A claim is a lease: while the work goes on it is extended, and when its owner dies it ends by
// itself and the next one takes over.
//
//	                Begin                       Complete                  retain is over
//	(no record) ----------->  claimed  ------------------------->  done  --------------> (no record)
//	     ^                    |  |  ^                               |
//	     |      Release       |  |  |  Begin: takes over            +-- Begin: Replay, or Mismatch
//	     +--------------------+  |  |  (Park: Unknown)
//	                             v  |
//	                            lease over --- Complete, if nobody took over ---> done
//
// Do is for any function, Consume for the handler of a message, package httpguard for the Idempotency-Key header. All
// three do the same:
//
//   - The claim comes first, the result after the work. A failure gives the claim up, so the next try runs; after Done it
//     does not.
//   - The context of the work ends with cause ErrLost before somebody else can take over.
//   - The books are kept even when the caller has gone away.
//   - A result that cannot be kept leaves a tombstone: a duplicate is told so, it never runs.
//   - When the store fails before the work, the work does not start. When it fails after the work, the claim is kept.
//
// What must not be concluded: that work runs exactly once. An owner that dies in the middle, or that cannot reach the
// store until its lease has ended, has had an effect which nobody recorded, and the next one runs again; Park refuses
// that and answers ErrUnknown instead. An owner that is only stalled may still be writing when the next one starts: hand
// Ticket.Fence to what can compare it. A store that forgets (see its package) lets a duplicate through. Only where the
// record joins the transaction of the effect is the effect exactly once.
package idempotency
