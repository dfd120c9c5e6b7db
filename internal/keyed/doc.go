// Package keyed keeps one value per key, boundedly: what has not been used for a while is forgotten, and where there
// are too many keys, the least recently used goes first. Keys come from requests, so without a bound a map of breakers
// or budgets would be a leak that strangers control. Standard library only.
//
// It guarantees that a [Map] never holds more than its bound, that a key in use keeps its value, and that values that
// must not be lost lightly (an open breaker) are evicted last.
//
// It must not be concluded that a value is unused when it has been evicted: whoever got it before may still hold it,
// and the next Get of its key makes another one.
package keyed
