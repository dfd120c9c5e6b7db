package retry

import "time"

// A Budget bounds retries to a share of first attempts, over all the calls that share it, so that an outage is not
// multiplied. The zero value is not usable; see NewBudget. Any number of goroutines may use a Budget at once.
type Budget struct{ unlimited bool }

// BudgetConfig configures a Budget.
type BudgetConfig struct {
	Ratio     float64       // retries per first attempt. Zero: 0.2
	PerSecond float64       // retries allowed beyond the ratio. Zero: 3
	Window    time.Duration // how long a first attempt counts. Zero: 10 s
}

// NewBudget returns a full budget. A budget that allows nothing has another name: Never.
func NewBudget(c BudgetConfig) (*Budget, error) { panic("unwritten") }

// Unlimited is the budget that never refuses.
var Unlimited = &Budget{unlimited: true}
