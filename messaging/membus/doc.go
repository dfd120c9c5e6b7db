// Package membus is messaging in memory: a transport for one process, and for tests that want a broker's behaviour
// without a broker. It has groups, leases, redelivery with delay, attempts, order by key across the members of a group,
// replay, scheduled messages, a dedupe window and bounded topics. Everything hangs on the clock of package time and
// nothing polls, so in a bubble of testing/synctest an hour of outage takes no time.
//
// What it guarantees: a message that Send accepted is delivered at least once to every group that existed by then, and
// to every group that begins at the earliest message as long as the topic keeps it. A topic never drops what a group has
// not settled: Publish waits for room instead. [Bus.Inject] makes it misbehave as a broker does.
//
// What must not be concluded: nothing outlives the process. A group stays when its members leave, and holds its topic's
// room until it is served again. The dedupe window is bounded by the number of messages a topic may keep, whichever ends
// first. Header and Body are shared between publisher and receivers, not copied; neither side may change them.
package membus
