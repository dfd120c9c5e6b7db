// Package messaging publishes and consumes messages with one policy over any transport.
//
// The handler's return value is the acknowledgement. nil means done. An error means: try again by policy, then publish
// a dead letter that says why. [Reject] means dead letter now, [RetryAfter] means this delay and no attempt counted. There
// is no Ack to forget and none to call twice.
//
// What it guarantees, over a transport whose Features promise the parts:
//
//   - Publish returns nil only when the transport has every message. Otherwise a [*PublishError] names each message that
//     is not stored, or of which that is not known.
//   - A message is delivered at least once. It is acknowledged after its handler has returned nil, or after its dead
//     letter is stored; never before.
//   - The lease of every message in hand is kept alive, whether it runs or waits. When it is lost all the same, the
//     handler's context ends with [ErrLeaseLost] and nothing is said to the transport about that message any more.
//   - A failing message waits outside of the handlers' slots, with jitter, and never forever.
//   - An ordered consumer handles the messages of one Key one after another, also while one of them is retried.
//   - When 10 different messages fail and none succeeds in between, which is what an outage of something they all need
//     looks like, the consumer tries one at a time, in the end every 30 s, until one succeeds, instead of making dead
//     letters of the queue.
//   - When the context of Run ends, running handlers finish with a living context and what has not started is handed
//     back at once. A shutdown is not a failure of any message.
//
// What must not be concluded from it:
//
//   - At least once is not once. A crash, a lost acknowledgement or a lost lease means a second delivery, and a publish
//     whose outcome is unknown is repeated under the same ID. Effects that must not happen twice need package
//     idempotency, or a transaction of their own.
//   - A lease is a promise of time, not a lock: a frozen process does not notice that it has lost one.
//   - One message cannot tell an outage from itself. By default it is given up after 10 attempts, which takes 4 minutes on
//     average and 9 at most: longer than the redeploy of a dependency, shorter than its outage. Where few messages come,
//     a higher MaxAttempts or RetryAfter sits that out.
//   - The count of attempts is the transport's count of deliveries, less the uses of RetryAfter that this process knows
//     of. Crashes and hand-backs raise it.
//   - A NotBefore is a lower bound, not an appointment.
//   - Order is by Key and by topic, and ends at a dead letter: the messages behind it go on.
package messaging
