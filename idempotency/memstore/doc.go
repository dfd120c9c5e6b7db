// Package memstore is the idempotency store in memory: for one process, and for tests, where it runs in virtual time.
//
// It is bounded by keys and by bytes. When it is full it refuses new claims with idempotency.ErrFull; it never forgets a
// claim or a result before its time. Time is that of the process's monotonic clock, which no adjustment of the wall
// clock moves.
//
// What must not be concluded: that a duplicate is caught after a restart, or in a second instance. Records live and die
// with the Store. Fences do grow over a restart, unless the wall clock is set back.
package memstore
