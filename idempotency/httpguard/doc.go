// Package httpguard is the Idempotency-Key header for net/http servers, after
// draft-ietf-httpapi-idempotency-key-header: a client that repeats a POST under the same key gets the first answer
// again, marked Idempotent-Replayed: true, and the handler does not run.
//
// The key may come bare or as a quoted string (RFC 8941); both are the same key. It is 1 to 255 visible ASCII
// characters, and counts within one tenant, method and requested path only: two tenants never meet. The body is read before the
// handler, up to MaxRequestBytes, and given back to it.
//
// What is kept: the status, the body up to MaxKeptBytes, and the headers Content-Type, Content-Language,
// Content-Encoding, Content-Disposition, Location, ETag, Last-Modified, Link, and those of Config.Headers. By default
// 2xx, 3xx and the client errors that would happen again (400, 402, 404, 405, 406, 410, 413 to 416, 422, 451) are kept.
// After any other status, and after a panic, the key is free and the next request runs. A handler that has begun such an
// answer has had its effect: a panic after that (httputil.ReverseProxy has one where the body breaks off) leaves a
// tombstone.
//
// The answer is recorded before it is sent. An answer that is streamed (Flush, Hijack, trailers) or too large is sent
// as it comes and leaves a tombstone: a duplicate is told that the work is done, it does not run.
//
// Put what refuses a request before it starts (authentication, rate limits) outside of the guard, and what counts or
// compresses answers too; what reads the body (forms) goes inside. The host is no part of a key: where several have
// different services at one path, scope names them.
//
// What must not be concluded: that an answer which was sent means that it was recorded. When the store fails after the
// work, the client still gets its answer, and the claim is left to its lease. Nor that work ends with its handler: what
// goes on in another goroutine, as it does within http.TimeoutHandler, is not seen.
//
// The guard's own answers are problems (RFC 9457). Their types are the headings below, as links into this page.
//
// # Key missing
//
// 400. The method is guarded and the request has no key.
//
// # Key malformed
//
// 400. The header is repeated, a list, empty, longer than 255, or not visible ASCII.
//
// # Body unreadable
//
// 400. The body ended early, or was read before it came to the guard.
//
// # Scope refused
//
// 403. The scope function refused the request.
//
// # In flight
//
// 409, with Retry-After. Another request with this key is being worked on.
//
// # Outcome unknown
//
// 409. Another request with this key began, and nobody knows how it ended (Config.Park).
//
// # Answer not kept
//
// 410. The work is done, and its answer could not be kept. A repetition does not help.
//
// # Body too large
//
// 413. The body is larger than MaxRequestBytes. Nothing was claimed.
//
// # Key reused
//
// 422. The key was used with another query or body.
//
// # Store unavailable
//
// 503, with Retry-After. The work did not start.
package httpguard
