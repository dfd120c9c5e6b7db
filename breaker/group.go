package breaker

import "time"

// GroupConfig configures a Group.
type GroupConfig struct {
	Config                // of each breaker
	MaxKeys int           // breakers kept at once. Zero: 1024
	Idle    time.Duration // an unused breaker is forgotten after this. Zero: 10 min
}

// A Group holds one Breaker per key, boundedly: the least recently used is forgotten first, an open one last.
// Any number of goroutines may use it at once. A nil *Group is what each constructor replaces by a default one; the
// group that lets everything through is Off.
type Group struct{ off bool }

// NewGroup returns an empty Group. The error joins every fault of the GroupConfig.
func NewGroup(c GroupConfig) (*Group, error) { panic("unwritten") }

// Off returns the Group that lets everything through: its Get returns nil.
func Off() *Group { return &Group{off: true} }

// Get returns the breaker of key, made at first use.
func (g *Group) Get(key string) *Breaker { panic("unwritten") }

// Each calls f for each breaker of the group, in no order, without a lock held.
func (g *Group) Each(f func(*Breaker)) { panic("unwritten") }
