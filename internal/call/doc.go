// Package call holds what travels between tiers: the names of the headers, the grammar of their values, and the marks
// that a context carries from one tier of this process to the next. Standard library only.
package call
