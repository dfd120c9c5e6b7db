// Package grpcclient gives a gRPC client and server the policies that package client gives net/http: timeouts, retries
// within a budget, breakers, and the words that keep tiers from multiplying each other's attempts.
//
// On the client side pass [DialOptions] to grpc.NewClient, once for each connection; on the server side pass
// [ServerOptions] to grpc.NewServer. Each attempt runs inside this order, outside in: overall timeout, try loop,
// breaker, attempt timeout, wire.
//
// What it guarantees:
//
//   - A call is repeated only if that is safe: its method is idempotent (Config.Idempotent, the idempotency_level of
//     its descriptor, or [retry.Idempotent]), or the attempt provably did not begin: grpc never had a connection to
//     send it over. UNAVAILABLE is then worth another attempt, and so is an attempt that our own attempt timeout ended;
//     RESOURCE_EXHAUSTED and ABORTED are only where the server says when to come back. A DEADLINE_EXCEEDED or CANCELED
//     that the server sent never is. Policy.Retryable may forbid more, never allow more.
//   - The server's word is obeyed: a RetryInfo detail and grpc-retry-pushback-ms are floors of the wait; a pushback
//     that is negative, malformed or repeated, and tandem-retry, end the call.
//   - The error of a call is a status error: status.Code, Message and Details are those of the last attempt. It unwraps
//     to a *[retry.Error], and a refusal of a breaker (UNAVAILABLE) to a *[breaker.OpenError]. An end of the context
//     during a wait is the status that grpc gives it, and unwraps to the error of the last attempt as well.
//   - The reply, and what grpc.Header and grpc.Trailer collect, are those of the last attempt alone; a protobuf reply is
//     reset before another attempt.
//   - A stream is repeated only until its first message, or its header, reached the application. A stream that cannot
//     be repeated works as it would without this package.
//   - No goroutine is started. A breaker's permit is given back however an attempt ends, a panic included.
//
// What must not be concluded from it:
//
//   - UNAVAILABLE does not mean that nothing happened: a connection can break after the server has done its work. That
//     is why a method that says nothing about itself is not repeated. Annotate it in its .proto file:
//     option idempotency_level = IDEMPOTENT.
//   - A breaker's success of a stream is its first message. What becomes of the stream later is not judged.
//   - AttemptTimeout bounds a stream that only the server sends on, up to its first message. One that the client sends
//     on too is bounded until it is opened: when its server answers is for the client to say.
//   - Interceptors, credentials and stats handlers below see attempts, not calls, and so does grpc.OnFinish.
//   - The deadline that a server sees (grpc-timeout) is that of the attempt, not that of the call.
package grpcclient
