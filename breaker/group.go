package breaker

import (
	"errors"
	"fmt"
	"time"

	"github.com/tandemgo/tandem/internal/keyed"
)

// GroupConfig configures a Group.
type GroupConfig struct {
	Config                // of each breaker
	MaxKeys int           // breakers kept at once. Zero: 1024
	Idle    time.Duration // an unused breaker is forgotten after this. Zero: 10 min
}

// A Group holds one Breaker per key, boundedly: the least recently used is forgotten first, an open one last, and not
// for being idle. Any number of goroutines may use it at once. A nil *Group is what each constructor replaces by a default
// one; the group that lets everything through is Off.
//
// Make keys of what is bounded by itself, such as hosts, methods and route templates, not of raw paths: a bound that
// is reached makes breakers forget.
type Group struct {
	breakers *keyed.Map[string, *Breaker] // nil: Off
}

// NewGroup returns an empty Group. The error joins every fault of the GroupConfig.
func NewGroup(c GroupConfig) (*Group, error) {
	faults := []error{c.validate()}
	if c.MaxKeys < 0 {
		faults = append(faults, fmt.Errorf("breaker: MaxKeys %d is negative", c.MaxKeys))
	}
	if c.Idle < 0 {
		faults = append(faults, fmt.Errorf("breaker: Idle %v is negative", c.Idle))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	setDefault(&c.MaxKeys, 1024)
	setDefault(&c.Idle, 10*time.Minute)
	each := c.Config.filled()
	return &Group{keyed.New(c.MaxKeys, c.Idle,
		func(key string) *Breaker { return newBreaker(key, each) },
		func(b *Breaker) bool { return b.State() == Open },
	)}, nil
}

// Off returns the Group that lets everything through: its Get returns nil.
func Off() *Group { return &Group{} }

// Get returns the breaker of key, made at first use; its name is the key.
func (g *Group) Get(key string) *Breaker {
	if g == nil || g.breakers == nil {
		return nil
	}
	return g.breakers.Get(key)
}

// Each calls f for each breaker of the group, in no order, without a lock held.
func (g *Group) Each(f func(*Breaker)) {
	if g == nil || g.breakers == nil {
		return
	}
	g.breakers.Each(func(_ string, b *Breaker) { f(b) })
}
