// Package messagingtest is the contract of a transport, as tests. Every adapter runs it, ours and yours:
//
//	func TestContract(t *testing.T) {
//		messagingtest.Run(t, synctest.Test, func(t *testing.T) messagingtest.Harness { ... })
//	}
//
// Features decide what a case asserts: that the promise is kept, or that asking for more is refused. Both count.
//
// The cases wait for leases and delays of seconds. In a bubble of testing/synctest, which is what the second argument is
// for, that takes no time; a transport that needs the real clock passes [Live].
package messagingtest
