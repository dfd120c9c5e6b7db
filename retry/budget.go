package retry

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// A Budget bounds retries to a share of first attempts, over all the calls that share it, so that an outage is not
// multiplied. To the share comes a floor that time alone refills: it lets a client with little traffic retry at all,
// and it means that no budget stays empty. The zero value is not usable; see NewBudget. Any number of goroutines may
// use a Budget at once, and any number of policies may share one.
type Budget struct {
	unlimited bool
	ratio     float64
	perSecond float64
	burst     float64       // the most that the floor holds
	window    time.Duration // of the share
	slot      time.Duration // window / slots

	mu     sync.Mutex
	floor  float64       // retries that the floor allows now
	at     time.Time     // when floor and ring were true
	into   time.Duration // how far at is into the current slot
	ring   [slots]tally
	now    int   // the current slot of the ring
	sum    tally // of the ring
	denied int64
}

const slots = 10

type tally struct{ firsts, retries int64 }

// BudgetConfig configures a Budget.
type BudgetConfig struct {
	Ratio     float64       // retries per first attempt. Zero: 0.2
	PerSecond float64       // retries allowed beyond the ratio, up to Window's worth at once. Zero: 3
	Window    time.Duration // how long a first attempt counts. Zero: 10 s
}

// NewBudget returns a full budget. The error joins every fault of the BudgetConfig. A budget that allows nothing has
// another name: Never.
func NewBudget(c BudgetConfig) (*Budget, error) {
	var faults []error
	bad := func(f float64) bool { return f < 0 || math.IsNaN(f) || math.IsInf(f, 0) }
	if bad(c.Ratio) {
		faults = append(faults, fmt.Errorf("retry: budget Ratio %v is not a share", c.Ratio))
	}
	if bad(c.PerSecond) {
		faults = append(faults, fmt.Errorf("retry: budget PerSecond %v is not a rate", c.PerSecond))
	}
	if c.Window < 0 || c.Window > 0 && c.Window < slots {
		faults = append(faults, fmt.Errorf("retry: budget Window %v is too short", c.Window))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if c.Ratio == 0 {
		c.Ratio = 0.2
	}
	if c.PerSecond == 0 {
		c.PerSecond = 3
	}
	if c.Window == 0 {
		c.Window = 10 * time.Second
	}
	// A rate of less than one per window still comes to a whole retry in time.
	burst := max(c.PerSecond*c.Window.Seconds(), 1)
	return &Budget{
		ratio: c.Ratio, perSecond: c.PerSecond, burst: burst, window: c.Window, slot: c.Window / slots,
		floor: burst, at: time.Now(),
	}, nil
}

// Unlimited is the budget that never refuses.
var Unlimited = &Budget{unlimited: true}

// Level is how many retries the budget would allow at this moment, rounded down: an observation for metrics and logs,
// stale when it returns. A nil or unlimited budget has math.MaxInt64.
func (b *Budget) Level() int64 {
	if b == nil || b.unlimited {
		return math.MaxInt64
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	const most = 1 << 61 // of each: a float64 beyond the range of int64 has no conversion
	return int64(min(b.floor+epsilon, most)) + int64(min(max(b.share(), 0)+epsilon, most))
}

// Denied is how many retries the budget has refused since it was made.
func (b *Budget) Denied() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.denied
}

// epsilon forgives the rounding of a product such as 0.29 * 100.
const epsilon = 1e-9

// deposit counts a first attempt.
func (b *Budget) deposit(now time.Time) {
	if b == nil || b.unlimited {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	b.ring[b.now].firsts++
	b.sum.firsts++
}

// withdraw takes one retry, from the share first, so that the floor is there for what the share does not cover.
func (b *Budget) withdraw(now time.Time) bool {
	if b == nil || b.unlimited {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	if b.share() >= 1-epsilon {
		b.ring[b.now].retries++
		b.sum.retries++
		return true
	}
	if b.floor >= 1-epsilon {
		b.floor = max(b.floor-1, 0)
		return true
	}
	b.denied++
	return false
}

// share is what the first attempts in the window still allow.
func (b *Budget) share() float64 { return b.ratio*float64(b.sum.firsts) - float64(b.sum.retries) }

// advance refills the floor and lets old slots of the ring expire.
func (b *Budget) advance(now time.Time) {
	d := now.Sub(b.at)
	if d <= 0 {
		if d < -b.window { // another clock, such as that of a test's bubble: begin anew with it
			b.at = now
		}
		return
	}
	b.at = now
	b.floor = min(b.floor+d.Seconds()*b.perSecond, b.burst)
	if d >= b.window {
		b.ring, b.sum, b.into = [slots]tally{}, tally{}, 0
		return
	}
	for b.into += d; b.into >= b.slot; b.into -= b.slot {
		b.now = (b.now + 1) % slots
		b.sum.firsts -= b.ring[b.now].firsts
		b.sum.retries -= b.ring[b.now].retries
		b.ring[b.now] = tally{}
	}
}
