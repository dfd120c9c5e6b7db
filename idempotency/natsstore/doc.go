// Package natsstore is the idempotency store in a JetStream key-value bucket, for many instances that share one NATS.
//
// One record per key, one compare-and-set per step: a raw publish to the key's subject that expects the last revision
// and carries the record's time to live (the client's own Update drops it). The bucket needs nats-server 2.11 with
// per-message TTL; Provision declares it.
//
// A record outlives its lease, so late completions, takeovers and Park work. Whether a lease has passed is decided by
// the server's clock: the time it stamped on the record against the time it tells with the stream's information. A
// client's clock measures for a second at most. Who takes over does so by compare-and-set, so that even a server whose
// clock is wrong never lets two owners complete.
//
// A new key costs one round trip, its completion another; a duplicate two, of work under way three, and once a second a
// fourth. While the server cannot be reached every step is an error, and the work does not start.
//
// A bucket with a limit must not be full: at the limit a replicated stream refuses every step, so work that is done
// could not be recorded, and would run again. Config.MaxBytes keeps an eighth free. An account's limit has no such
// reserve.
//
// A service needs permission to publish to
//
//	$KV.BUCKET.>
//	$JS.API.DIRECT.GET.KV_BUCKET.>
//	$JS.API.STREAM.MSG.GET.KV_BUCKET
//	$JS.API.STREAM.INFO.KV_BUCKET
//
// and to subscribe to its inbox; Provision, to publish to the last of them, $JS.API.INFO and
// $JS.API.STREAM.CREATE.KV_BUCKET. Whoever may read the bucket reads keys and results.
//
// What must not be concluded: that a record survives a power failure on one replica. A file-backed stream syncs to disk
// at intervals; use three replicas where a forgotten claim costs money. A stream that is purged, or whose messages are
// removed by limits, forgets its claims.
package natsstore
