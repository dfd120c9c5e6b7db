// Package benchmarks measures tandem and its peers side by side, in one run: ratios and allocations are what counts, not
// seconds. "raw" does the same duties with the vendor's own client.
package benchmarks
