// Package tandem is a map, and exports nothing. Synchronous calls and
// asynchronous messages, in tandem: take the package you need.
//
//	client                 an *http.Client with timeouts, retries, budgets and breakers
//	client/grpcclient      the same for gRPC, as dial options and interceptors
//	retry                  the retry policy both share, usable for any function
//	breaker                circuit breakers, one per key, bounded
//	messaging              publishers and consumers over any transport
//	messaging/membus       in-memory transport, for tests and for one process
//	messaging/natsbus      NATS JetStream and NATS core
//	idempotency            a duplicate never has a second effect
//	idempotency/memstore   store in memory
//	idempotency/natsstore  store in a JetStream key-value bucket
//	idempotency/httpguard  the Idempotency-Key header for net/http servers
//
// Every package is a leaf or close to one: what you do not import does not
// reach your binary.
package tandem
