// Package conformance runs the contracts of this module against real servers. It has a module of its own, so that no
// server reaches a consumer's build, and is never tagged.
package conformance
