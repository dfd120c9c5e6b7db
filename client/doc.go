// Package client is net/http's client with timeouts, retries, budgets and breakers.
//
// [New] returns a plain *http.Client, so that every library that takes one works. [NewTransport] is the same as an
// http.RoundTripper, to be put under or over others. [NewInbound] is the other half, for servers.
//
// One call passes, outside in: the overall timeout, the try loop, the breaker of its key, the attempt timeout, the wire.
//
// What is guaranteed:
//
//   - Both timeouts end at the headers of the final response. From there on a body is bounded by the caller's context
//     and by BodyIdleTimeout, so a stream may live for an hour and a body gone silent does not hang its reader.
//   - Only what may happen twice is sent twice: an idempotent method (RFC 9110, 9.2.2), a request with an
//     Idempotency-Key, a call marked with [retry.Idempotent], or one that provably never reached the server. Its body
//     must be empty or come with GetBody; a body is never copied to memory behind the caller's back.
//   - A response is never turned into an error. When another attempt is not allowed, the last response is returned with
//     its body intact and a nil error. It is discarded only after everything that could forbid the next attempt was
//     asked, and then drained (64 KiB or 100 ms) and closed, so that its connection serves the next attempt.
//   - The request is never changed, and its body is closed on every path.
//   - A wait that would outlive the deadline is not begun: the outcome at hand is returned at once.
//   - Retry-After is a floor of the wait, "Tandem-Retry: no" forbids another attempt, and an open breaker is not called.
//   - While another attempt is allowed, one attempt gets at most half of what remains of the deadline, so that one slow
//     server cannot eat the whole of it.
//
// What must not be concluded:
//
//   - That a request is sent at most MaxAttempts times. net/http itself sends a replayable request again when a reused
//     connection turns out to be dead, and HTTP/2 does when the server refused a stream; neither is counted here.
//   - That a call ends within Timeout, its body included. Whoever wants that gives the request a context with a deadline.
//   - That a redirect shares the timeout: http.Client follows redirects above this package, and each hop is a call.
//   - That a response with an error in the middle of its body is retried: after the headers the caller has it. The breaker
//     judges up to the headers as well.
//   - That a server that fails opens a breaker, whatever it says: "Tandem-Retry: no" tells that it is well itself, and it is
//     believed.
//   - That a POST without a key is repeated after 503 or a timeout. It may have happened.
package client
