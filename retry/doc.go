// Package retry runs an operation again when that can help and is safe.
//
// A [Policy] says how often and how patiently; [Policy.Do] and [DoValue] run an operation under it. What ends a call is
// asked before each wait, never after it: the context, the operation's own word ([Permanent]), the number of attempts,
// the chain (below), the server's wish ([After]) against MaxHint or the deadline, the deadline against the wait, and
// last the [Budget]. So a call that cannot succeed any more returns at once, with the error of its last attempt.
//
// What it guarantees:
//
//   - Waits are drawn uniformly between zero and a ceiling that doubles and is capped (full jitter).
//   - A server's wish is a floor: the wait is never shorter, and at most a tenth longer.
//   - No wait outlives the deadline of the context.
//   - The error of a failed call is always an [*Error]. It unwraps to the last error of the operation and, where the
//     context ended the call, to the end of the context as well.
//   - Nothing is allocated for a call that succeeds at the first attempt.
//   - A call made while answering a request that is itself a retry is not repeated (chain stop), and a call whose
//     retries have ended tells the caller of this process, through the server half of package client or grpcclient, not
//     to retry either. So tiers do not multiply each other's attempts.
//
// Errors answer through methods, found at any depth of a chain of errors; text is never looked at. Any error may have
// them, not only those of this module:
//
//	Permanent() bool             // true: not worth another attempt
//	Hint() (time.Duration, bool) // true: not before this has passed
//	Refused() bool               // true: the attempt never reached anybody, so it costs no budget and breaks no chain
//
// Permanent and After make errors with the first two. The refusal of package breaker has the last two; it is waited for
// only if that takes no longer than a wait of the policy's own might.
//
// What must not be concluded from it:
//
//   - Do does not know whether an operation may happen twice. Its caller does; the clients of this module ask.
//   - The context given to an operation ends with the call's, not with the attempt: a timeout for each attempt is the
//     operation's business.
//   - Do around a client of this module multiplies: each attempt of the one is a call with attempts of the other. One of
//     them should be [Never]; [WithPolicy] says so for a single call.
//   - A Budget bounds retries, not first attempts: it does not replace a breaker or a limiter.
package retry
