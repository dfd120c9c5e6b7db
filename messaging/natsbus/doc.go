// Package natsbus is messaging over NATS: JetStream with New, core NATS with NewCore. The connection is the user's: it
// is never closed here.
//
// What a Bus guarantees:
//
//   - Publish returns nil when the stream has stored every message. Messages of one call travel together; those that
//     share a Key are stored one after another.
//   - A second publish of one ID to one topic within two minutes is stored once.
//   - A group is a durable pull consumer: it keeps its place while nobody is connected, its members compete, and a
//     delivery that is neither settled nor extended comes back after the lease.
//   - Only free slots are asked for, over an own overlapped pull loop. A lost connection, a restarted server, a deleted
//     consumer or a change of leader is recovered from without help.
//   - A reader without a group reads the stream in order and goes on after its last message, whatever happens to its
//     consumer on the server. Messages that were dropped before they were read are reported as a Gap.
//   - Provision and Open never change what exists. Settings that differ are an error that names all of them.
//
// What must not be concluded:
//
//   - A group has no order, of no kind, as soon as a message is retried or a second member joins: Ordered with a Group is
//     refused.
//   - An acknowledgement that comes too late settles the newer delivery of the same message on the server. A Bus never
//     sends one that it knows to be late, but it cannot know of a process that stood still after it had sent.
//   - An acknowledgement lost with the connection costs a redelivery, also with ConfirmAcks, which only tells of it.
//   - A group whose consumer was deleted on the server begins again at its Start. Members notice when they are told, or when
//     the numbers of the new consumer go back; a verdict sent before that settles for the new one.
//   - A lease is counted from the arrival of a delivery, and the server's begins when it is sent: it ends earlier by the time
//     on the way.
//   - What a reader had not read of a stream that was deleted is gone, and no Gap tells of it: it goes on with the first
//     message of the stream that was made in its place.
//
// On the wire a message is a CloudEvent 1.0 in binary mode: its attributes are "ce-" headers, its Header travels as plain
// NATS headers. Messages of foreign producers without these headers are accepted.
//
// # Existing consumers
//
// Open compares a durable that exists with what it would create. Everything that decides which messages are delivered
// and how often must be equal: acknowledgement policy, delivery limit, back-off, filter, replay, lease, limits of a pull.
// Two settings are not compared as equal. The start position belongs to a group without a place. The bound on
// unacknowledged messages is shared by all members of the group, so it is made larger than one member needs and an
// existing one is accepted if this member fits into it: a rolling deployment may change Concurrency.
package natsbus
