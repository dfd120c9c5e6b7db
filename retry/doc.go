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
// What must not be concluded from it:
//
//   - Do does not know whether an operation may happen twice. Its caller does; the clients of this module ask.
//   - The context given to an operation ends with the call's, not with the attempt: a timeout for each attempt is the
//     operation's business.
//   - A Budget bounds retries, not first attempts: it does not replace a breaker or a limiter.
package retry
