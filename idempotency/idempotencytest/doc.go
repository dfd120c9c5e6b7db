// Package idempotencytest is the contract of idempotency.Store as tests, for whoever writes one, and a store that fails
// on demand, for whoever tests a service that uses one. It needs the standard library only.
//
//	func TestStore(t *testing.T) {
//		idempotencytest.Run(t, idempotencytest.Harness{New: func(tb testing.TB) idempotency.Store { return newStore(tb) }})
//	}
//
// Each case is a rule in words, and asserts what the store promises as strictly as what it refuses to promise. Each case
// runs in a testing/synctest bubble, so a day of retention takes no time; a store whose server cannot live in a bubble
// says so with Harness.Real.
package idempotencytest
